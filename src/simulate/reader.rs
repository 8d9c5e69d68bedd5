//! Other makers' readers, each with its own messages on its usual topics, at the meter of a simulated household.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::adapter::{Moment, State};
use crate::config::PRESETS;

/// Another reader, called as `payload` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader(&'static str);

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
}

/// The grid where these readers are: volts, and the shares of the three phases in hundredths.
const VOLTS: i64 = 230;
const SHARES: [i64; 3] = [50, 30, 20];

impl Reader {
    /// The reader that the payload `name` is for.
    pub fn named(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name == name).map(|preset| Self(preset.name))
    }

    /// What it says of one moment. Times without zone are in `zone`.
    pub fn messages(self, moment: &Moment, zone: &TimeZone) -> Vec<Message> {
        let say = Say { now_ms: moment.now_ms, meter: &moment.meter, zone };
        match self.0 {
            "shrdzm" => say.one(format!("SHRDZM/{0}/{0}/sensor", say.id()), say.shrdzm()),
            "amis-reader" => say.one("amis/out".to_owned(), say.amis_reader()),
            "tasmota-sml" => say.one(format!("tele/meter-{}/SENSOR", moment.meter.number), say.tasmota_sml()),
            "tasmota-plug" => say.one(format!("tele/plug-{}/SENSOR", moment.meter.number), say.tasmota_plug()),
            "shelly-pro-3em" => say.shelly_pro_3em(),
            "shelly-em" => say.shelly_em(),
            "ams-reader" => say.one("ams".to_owned(), say.ams_reader()),
            "dsmr-reader" => say.one("dsmr/json".to_owned(), say.dsmr_reader()),
            "zigbee2mqtt-plug" => say.one(format!("zigbee2mqtt/plug-{}", moment.meter.number), say.zigbee2mqtt_plug()),
            "vzlogger" => say.vzlogger(),
            "sml2mqtt" => say.sml2mqtt(),
            _ => say.esphome(),
        }
    }
}

struct Say<'m> {
    now_ms: i64,
    meter: &'m State,
    zone: &'m TimeZone,
}

impl Say<'_> {
    fn one(&self, topic: String, payload: String) -> Vec<Message> {
        vec![Message { topic, payload }]
    }

    /// Each value on a topic of its own, below `above`.
    fn each<const N: usize>(&self, above: &str, values: [(&str, String); N]) -> Vec<Message> {
        let message = |(topic, payload): (&str, String)| Message { topic: format!("{above}/{topic}"), payload };
        values.into_iter().map(message).collect()
    }

    /// Twelve hexadecimal digits, as of a network card.
    fn id(&self) -> String {
        format!("84F3{:>08}", self.meter.number)
    }

    fn seconds(&self) -> i64 {
        self.now_ms.div_euclid(1000)
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn local(&self) -> String {
        self.time().to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
    }

    fn import_w(&self) -> i64 {
        self.meter.net_w.max(0)
    }

    fn export_w(&self) -> i64 {
        (-self.meter.net_w).max(0)
    }

    fn import_kwh(&self) -> String {
        thousandths(self.meter.imported_wh)
    }

    fn export_kwh(&self) -> String {
        thousandths(self.meter.exported_wh)
    }

    /// Net power of a phase.
    fn phase_w(&self, phase: usize) -> i64 {
        self.meter.net_w * SHARES[phase] / 100
    }

    /// Milliamperes of so many watts.
    fn amperes(watts: i64) -> String {
        thousandths((watts.unsigned_abs() * 1000) / VOLTS.unsigned_abs())
    }

    fn shrdzm(&self) -> String {
        let State { number, imported_wh, exported_wh, net_w, .. } = self.meter;
        format!(
            r#"{{"id":"{}","timestamp":"{}","uptime":"0000:01:05:44","0.0.1":"{number}","1.7.0":"{}","1.8.0":"{imported_wh}","2.7.0":"{}","2.8.0":"{exported_wh}","16.7.0":"{net_w}","13.7.0":"99"}}"#,
            self.id(),
            self.local(),
            self.import_w(),
            self.export_w(),
        )
    }

    fn amis_reader(&self) -> String {
        let State { imported_wh, exported_wh, net_w, .. } = self.meter;
        format!(
            r#"{{"time":{},"1.8.0":{imported_wh},"2.8.0":{exported_wh},"1.7.0":{},"2.7.0":{},"saldo":{net_w}}}"#,
            self.seconds(),
            self.import_w(),
            self.export_w(),
        )
    }

    fn tasmota_sml(&self) -> String {
        format!(
            r#"{{"Time":"{}","SML":{{"Total_in":{},"Total_out":{},"Power_curr":{},"Meter_number":"0a01{}"}}}}"#,
            self.local(),
            self.import_kwh(),
            self.export_kwh(),
            self.meter.net_w,
            self.meter.number,
        )
    }

    fn tasmota_plug(&self) -> String {
        format!(
            r#"{{"Time":"{}","ENERGY":{{"TotalStartTime":"2021-01-01T10:00:00","Total":{},"Power":{watts},"Factor":0.99,"Voltage":{VOLTS},"Current":{}}}}}"#,
            self.local(),
            self.import_kwh(),
            Self::amperes(self.import_w()),
            watts = self.import_w(),
        )
    }

    fn shelly_pro_3em(&self) -> Vec<Message> {
        let device = format!("shellypro3em-{}", self.meter.number);
        let mut phases = String::new();
        for (phase, letter) in ['a', 'b', 'c'].into_iter().enumerate() {
            let watts = self.phase_w(phase);
            let amperes = Self::amperes(watts);
            phases += &format!(
                r#""{letter}_current":{amperes},"{letter}_voltage":{VOLTS}.1,"{letter}_act_power":{watts}.0,"{letter}_freq":50.0,"#
            );
        }
        let State { imported_wh, exported_wh, net_w, .. } = self.meter;
        self.each(
            &device,
            [
                ("status/em:0", format!(r#"{{"id":0,{phases}"n_current":null,"total_act_power":{net_w}.000}}"#)),
                (
                    "status/emdata:0",
                    format!(r#"{{"id":0,"total_act":{imported_wh}.00,"total_act_ret":{exported_wh}.00}}"#),
                ),
            ],
        )
    }

    fn shelly_em(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for (phase, share) in SHARES.iter().enumerate() {
            let above = format!("shellies/shellyem3-{}/emeter/{phase}", self.meter.number);
            let of_phase = |wh: u64| (wh * share.unsigned_abs() / 100).to_string();
            let values = [
                ("power", format!("{}.00", self.phase_w(phase))),
                ("voltage", format!("{VOLTS}.10")),
                ("total", of_phase(self.meter.imported_wh)),
                ("total_returned", of_phase(self.meter.exported_wh)),
            ];
            messages.extend(self.each(&above, values));
        }
        messages
    }

    fn ams_reader(&self) -> String {
        format!(
            r#"{{"id":"{}","name":"ams-{number}","up":86412,"t":{},"vcc":3.289,"rssi":-61,"data":{{"id":"{number}","P":{},"PO":{},"U1":{VOLTS}.10,"tPI":{},"tPO":{}}}}}"#,
            self.id(),
            self.seconds(),
            self.import_w(),
            self.export_w(),
            self.import_kwh(),
            self.export_kwh(),
            number = self.meter.number,
        )
    }

    fn dsmr_reader(&self) -> String {
        let kilowatts = |watts: i64| thousandths(watts.unsigned_abs());
        format!(
            r#"{{"id":null,"timestamp":"{}","electricity_delivered_1":"{}","electricity_returned_1":"{}","electricity_currently_delivered":"{}","electricity_currently_returned":"{}"}}"#,
            self.time(),
            self.import_kwh(),
            self.export_kwh(),
            kilowatts(self.import_w()),
            kilowatts(self.export_w()),
        )
    }

    fn zigbee2mqtt_plug(&self) -> String {
        format!(
            r#"{{"current":{},"energy":{},"last_seen":"{}","linkquality":120,"power":{watts},"state":"ON","voltage":{VOLTS}}}"#,
            Self::amperes(self.import_w()),
            self.import_kwh(),
            self.time(),
            watts = self.import_w(),
        )
    }

    fn vzlogger(&self) -> Vec<Message> {
        let value = |value: String| format!(r#"{{"timestamp":{},"value":{value}}}"#, self.now_ms);
        let State { imported_wh, exported_wh, net_w, .. } = self.meter;
        let values = [
            ("chn0/raw", imported_wh.to_string()),
            ("chn1/raw", exported_wh.to_string()),
            ("chn2/raw", net_w.to_string()),
        ];
        self.each("vzlogger/data", values.map(|(topic, number)| (topic, value(number))))
    }

    fn sml2mqtt(&self) -> Vec<Message> {
        let values = [
            ("0100010800ff", self.import_kwh()),
            ("0100020800ff", self.export_kwh()),
            ("0100100700ff", self.meter.net_w.to_string()),
        ];
        self.each(&format!("sml2mqtt/0a01{}", self.meter.number), values)
    }

    fn esphome(&self) -> Vec<Message> {
        let values = [
            ("sensor/energy_delivered_tariff1/state", self.import_kwh()),
            ("sensor/energy_returned_tariff1/state", self.export_kwh()),
            ("sensor/power_delivered/state", thousandths(self.import_w().unsigned_abs())),
            ("sensor/power_returned/state", thousandths(self.export_w().unsigned_abs())),
        ];
        self.each(&format!("meter-{}", self.meter.number), values)
    }
}

/// 1234567 → `1234.567`.
fn thousandths(number: u64) -> String {
    format!("{}.{:03}", number / 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;
    use crate::config::settings::Payload;
    use crate::decode::decode;
    use crate::obis::Obis;

    /// Promise 5: what a simulated reader says is what its payload understands, in the units of the meter behind it.
    #[test]
    fn every_payload_understands_its_reader() {
        let zone = TimeZone::get("Europe/Vienna").expect("the zone is known");
        let meter =
            State { number: "40564846".to_owned(), imported_wh: 18_941_808, exported_wh: 12_249_792, net_w: -894 };
        let moment = Moment { now_ms: 1_782_000_000_000, meter };
        for preset in PRESETS {
            let payload = Payload::Mapped(preset.mapping(zone.clone()).into());
            let reader = Reader::named(preset.name).expect("every payload has a reader");
            let (mut net, mut import) = (None, None);
            for message in reader.messages(&moment, &zone) {
                let said = decode(&payload, "house", &message.topic, message.payload.as_bytes());
                let said = said.unwrap_or_else(|reason| panic!("{}: {message:?}: {reason}", preset.name));
                assert!(said.measured_ms.is_none_or(|ms| ms == moment.now_ms), "{}: {said:?}", preset.name);
                assert!(said.measurements.iter().all(|one| one.flag.is_none()), "{}: {said:?}", preset.name);
                let filters = &Preset::named(preset.name).expect("it is there").table().expect("right").topics;
                assert!(crate::source::filter::any_matches(filters, &message.topic), "{}: {message:?}", preset.name);
                let value = |code: &str| {
                    let code: Obis = code.parse().expect("a code");
                    let found = said.measurements.iter().find(|one| one.code == crate::decode::Code::Obis(code));
                    found.and_then(|one| one.value.number())
                };
                net =
                    net.or(value("1-0:16.7.0")).or(value("1-0:2.7.0").filter(|watts| *watts > 0.0).map(|watts| -watts));
                import = import.or(value("1-0:1.8.0")).or(value("1-0:1.8.1"));
            }
            let plain = !matches!(preset.name, "vzlogger" | "shelly-em");
            let plug = preset.name.ends_with("plug");
            assert_eq!(import, plain.then_some(18_941_808.0), "{}", preset.name);
            assert_eq!(net, (plain && !plug).then_some(-894.0), "{}", preset.name);
        }
    }
}
