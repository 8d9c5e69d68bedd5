//! The Austrian smart meter adapter's document, second by second.

use std::time::Duration;

use super::household::Household;
use super::random::Random;

/// Watt × milliseconds in a watt-hour.
const WH: u64 = 3_600_000;

/// 2020-01-01T00:00:00Z: when the simulated meters were installed.
const INSTALLED_S: i64 = 1_577_836_800;

/// What an adapter is made from. Equal options give equal documents, for ever.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    /// Tells the adapters of one seed apart.
    pub index: u32,
    /// The name set in the adapter's web page; none: the meter's number, as adapters come.
    pub name: Option<String>,
    /// The meter's clock at the first document, milliseconds since 1970.
    pub start_ms: i64,
    /// From one document to the next; at least 1 ms.
    pub step: Duration,
}

/// What a meter shows at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    pub meter: State,
}

/// A meter's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The meter's number.
    pub number: String,
    pub imported_wh: u64,
    pub exported_wh: u64,
    /// From the grid above zero.
    pub net_w: i64,
}

/// A simulated adapter with its meter and its household.
#[derive(Debug)]
pub struct Adapter {
    number: String,
    name: String,
    household: Household,
    now_ms: i64,
    step_ms: u64,
    /// Tenths of a second.
    uptime: u64,
    first_uptime: u64,
    elapsed_ms: u64,
    /// Watt × milliseconds.
    imported: u64,
    exported: u64,
    net_w: i64,
}

impl Adapter {
    /// An adapter about to send its first document.
    pub fn new(options: &Options) -> Self {
        let number = meter_number(options.seed, options.index);
        let mut random = Random::new(options.seed, 1 + u64::from(options.index));
        let first_uptime = random.next() % 6_000_000;
        let hours = u64::try_from((options.start_ms / 1000 - INSTALLED_S) / 3600).unwrap_or(0);
        let step_ms = u64::try_from(options.step.as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000);
        // What a meter of this age would show: 250 to 550 W in, 100 to 300 W out on average.
        let imported = hours * (250 + random.next() % 300) * WH;
        let exported = hours * (100 + random.next() % 200) * WH;
        // The first one shows the sun, whatever the seed.
        let household = Household::new(random, options.index == 0);
        let mut adapter = Self {
            name: options.name.clone().unwrap_or_else(|| number.clone()),
            number,
            imported,
            exported: if household.has_panels() { exported } else { 0 },
            household,
            now_ms: options.start_ms,
            step_ms,
            uptime: first_uptime,
            first_uptime,
            elapsed_ms: 0,
            net_w: 0,
        };
        adapter.measure();
        adapter
    }

    /// The device's name, which becomes the key in Kafka.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The document of this moment; then the meter runs on by one step.
    pub fn document(&mut self) -> Vec<u8> {
        let document = self.render().into_bytes();
        self.skip(1);
        // The uptime has one decimal, and no two documents of an adapter share it: steps below a tenth count as one.
        self.uptime = (self.first_uptime + self.elapsed_ms / 100).max(self.uptime + 1);
        document
    }

    /// The document `since_start` after the first one, for whoever asks: the meter has measured at each step, the uptime is
    /// that of the question, and no two documents share it. `since_start` must not fall.
    pub fn asked(&mut self, since_start: Duration) -> Vec<u8> {
        let since_ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        self.skip((since_ms / self.step_ms).saturating_sub(self.elapsed_ms / self.step_ms));
        let document = self.render().into_bytes();
        self.uptime = (self.first_uptime + since_ms / 100).max(self.uptime + 1);
        document
    }

    /// The adapter's own state, as an older and a newer firmware tell it (ADAPTERS.md: seen).
    pub fn status(&self) -> Vec<u8> {
        let (seconds, tenth, packets) = (self.uptime / 10, self.uptime % 10, self.elapsed_ms / self.step_ms);
        format!(
            concat!(
                r#"{{"sma_status_id":2,"api_version":"1.0","sma_time":{seconds}.{tenth},"#,
                r#""meter":{{"interface":"wired M-Bus","name":"TD351x"}},"meter_valid_package_cnt":{packets},"#,
                r#""meter_invalid_package_cnt":0,"sma_status":"running","wifi":{{"enabled":true,"rssi":-34}},"#,
                r#""fw_version":"simulated"}}"#
            ),
            seconds = seconds,
            tenth = tenth,
            packets = packets,
        )
        .into_bytes()
    }

    /// What the meter shows at this moment; then it runs on by one step.
    pub fn moment(&mut self) -> Moment {
        let moment = Moment { now_ms: self.now_ms, meter: self.state() };
        self.skip(1);
        moment
    }

    /// What the meter shows at this moment.
    pub fn state(&self) -> State {
        State {
            number: self.number.clone(),
            imported_wh: self.imported / WH,
            exported_wh: self.exported / WH,
            net_w: self.net_w,
        }
    }

    /// The meter runs on by `steps`, and nobody asks it.
    pub fn skip(&mut self, steps: u64) {
        for _ in 0..steps {
            let energy = self.net_w.unsigned_abs() * self.step_ms;
            match self.net_w {
                0.. => self.imported += energy,
                _ => self.exported += energy,
            }
            self.now_ms = self.now_ms.saturating_add_unsigned(self.step_ms);
            self.elapsed_ms += self.step_ms;
            self.measure();
        }
    }

    fn measure(&mut self) {
        self.net_w = self.household.net_w(self.now_ms, self.step_ms as f64 / 1000.0);
    }

    /// Members, their order and their types as they were seen on the wire.
    fn render(&self) -> String {
        let Self { number, imported, exported, net_w, .. } = self;
        let time = self.now_ms.div_euclid(1000);
        let (import_wh, export_wh) = (imported / WH, exported / WH);
        let (import_w, export_w) = (net_w.max(&0), (-net_w).max(0));
        let name = serde_json::Value::from(self.name.as_str());
        let (seconds, tenth) = (self.uptime / 10, self.uptime % 10);
        format!(
            concat!(
                r#"{{"0-0:96.1.0":{{"value":"{number}"}},"0-0:1.0.0":{{"value":0,"time":{time}}},"#,
                r#""1-0:1.8.0":{{"value":{import_wh},"time":{time}}},"1-0:2.8.0":{{"value":{export_wh},"time":{time}}},"#,
                r#""1-0:1.7.0":{{"value":{import_w},"time":{time}}},"1-0:2.7.0":{{"value":{export_w},"time":{time}}},"#,
                r#""0-0:2.0.0":{{"value":481,"time":0}},"api_version":"v1","name":{name},"sma_time":{seconds}.{tenth}}}"#
            ),
            number = number,
            time = time,
            import_wh = import_wh,
            export_wh = export_wh,
            import_w = import_w,
            export_w = export_w,
            name = name,
            seconds = seconds,
            tenth = tenth,
        )
    }
}

/// Eight digits, different for every index of a seed.
pub fn meter_number(seed: u64, index: u32) -> String {
    let first = Random::new(seed, 0).next() % 80_000_000;
    (10_000_000 + (first + u64::from(index)) % 90_000_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Payload;
    use crate::decode::{Decoded, decode};
    use proptest::prelude::*;

    fn options(seed: u64, index: u32, step: Duration) -> Options {
        Options { seed, index, name: None, start_ms: 1_782_000_000_000, step }
    }

    fn decoded(document: &[u8]) -> Decoded {
        decode(&Payload::Sma, "house", "sma", document).expect("the adapter's document")
    }

    /// The bytes themselves, so that a change of the document or of the random numbers is seen.
    #[test]
    fn a_seed_and_a_start_give_the_same_bytes_for_ever() {
        let mut adapter = Adapter::new(&options(1, 0, Duration::from_secs(1)));
        for (second, uptime, power) in [(0, "332559.6", 204), (1, "332560.6", 198), (2, "332561.6", 200)] {
            let time = 1_782_000_000 + second;
            let expected = format!(
                concat!(
                    r#"{{"0-0:96.1.0":{{"value":"40564846"}},"0-0:1.0.0":{{"value":0,"time":{0}}},"#,
                    r#""1-0:1.8.0":{{"value":18941808,"time":{0}}},"1-0:2.8.0":{{"value":12249792,"time":{0}}},"#,
                    r#""1-0:1.7.0":{{"value":{1},"time":{0}}},"1-0:2.7.0":{{"value":0,"time":{0}}},"#,
                    r#""0-0:2.0.0":{{"value":481,"time":0}},"api_version":"v1","name":"40564846","sma_time":{2}}}"#
                ),
                time, power, uptime
            );
            assert_eq!(String::from_utf8(adapter.document()).expect("UTF-8"), expected);
        }
    }

    /// Members, order and types are those seen on the wire.
    #[test]
    fn the_document_has_the_shape_seen_on_the_wire() {
        let seen: serde_json::Value = serde_json::from_str(concat!(
            r#"{"0-0:96.1.0":{"value":"90296857"},"0-0:1.0.0":{"value":0,"time":1697623015},"#,
            r#""1-0:1.8.0":{"value":83403,"time":1697623015},"1-0:2.8.0":{"value":16564,"time":1697623015},"#,
            r#""1-0:1.7.0":{"value":40,"time":1697623015},"1-0:2.7.0":{"value":0,"time":1697623015},"#,
            r#""0-0:2.0.0":{"value":481,"time":0},"api_version":"v1","name":"90296857","sma_time":2435.7}"#
        ))
        .expect("JSON");
        let name = "Keller \"Süd\" \u{1f50c}";
        let named = Options { name: Some(name.to_owned()), ..options(5, 3, Duration::from_secs(5)) };
        let made = Adapter::new(&named).document();
        assert_eq!(decoded(&made).device, name);
        let made: serde_json::Value = serde_json::from_slice(&made).expect("JSON");
        let shape = |document: &serde_json::Value| -> Vec<String> {
            let kind = |value: &serde_json::Value| match value {
                serde_json::Value::String(_) => "text",
                serde_json::Value::Number(number) if number.is_i64() => "integer",
                serde_json::Value::Number(_) => "decimal",
                _ => "other",
            };
            let members = document.as_object().expect("an object");
            let inner = |value: &serde_json::Value| match value.as_object() {
                Some(object) => object.iter().map(|(key, value)| format!("{key} {},", kind(value))).collect(),
                None => kind(value).to_owned(),
            };
            members.iter().map(|(key, value)| format!("{key}: {}", inner(value))).collect()
        };
        assert_eq!(shape(&made), shape(&seen));
    }

    /// A day of seconds: the meter's clock keeps time, and registers are the sum of the powers.
    #[test]
    fn registers_add_up_over_a_day() {
        let mut adapter = Adapter::new(&options(3, 0, Duration::from_secs(1)));
        let first = decoded(&adapter.document());
        let (mut imported, mut exported) = (0.0, 0.0);
        let mut last = first.clone();
        for second in 1..=86_400 {
            imported += last.number(1, 7, 0).expect("power") / 3600.0;
            exported += last.number(2, 7, 0).expect("power") / 3600.0;
            last = decoded(&adapter.document());
            assert_eq!(last.measured_ms, Some(1_782_000_000_000 + second * 1000));
        }
        let grown = |d| last.number(d, 8, 0).expect("energy") - first.number(d, 8, 0).expect("energy");
        assert!((grown(1) - imported).abs() < 1.5, "{} {imported}", grown(1));
        assert!((grown(2) - exported).abs() < 1.5, "{} {exported}", grown(2));
        assert!(imported > 1000.0);
    }

    /// Promise 3: whoever asks more often than the meter measures gets the same measurement again, under another uptime.
    #[test]
    fn asked_between_two_measurements() {
        let mut adapter = Adapter::new(&options(1, 0, Duration::from_secs(5)));
        let mut asked = |ms| {
            let document = adapter.asked(Duration::from_millis(ms));
            let value: serde_json::Value = serde_json::from_slice(&document).expect("JSON");
            (value["sma_time"].clone(), decoded(&document).measured_ms, decoded(&document).measurements)
        };
        let (first, again, next, late) = (asked(0), asked(4_999), asked(5_000), asked(60_010));
        assert_eq!((&first.1, &first.2), (&again.1, &again.2));
        assert_ne!(first.0, again.0);
        assert_eq!(next.1, first.1.map(|ms| ms + 5_000));
        assert_eq!(late.1, first.1.map(|ms| ms + 60_000));
        let status: serde_json::Value = serde_json::from_slice(&adapter.status()).expect("JSON");
        assert_eq!(status["meter_valid_package_cnt"], 12);
    }

    proptest! {
        /// Promise 3: every document is the only one of its kind, and no register falls, whatever the step.
        #[test]
        fn no_two_documents_are_equal_and_no_register_falls(seed: u64, index in 0u32..1000, step_ms in 1u64..100_000, skip in 0u64..5) {
            let mut adapter = Adapter::new(&options(seed, index, Duration::from_millis(step_ms)));
            let mut seen = std::collections::HashSet::new();
            let mut registers = (0.0, 0.0);
            for _ in 0..50 {
                let document = adapter.document();
                let read = decoded(&document);
                prop_assert!(read.self_identified);
                let now = (read.number(1, 8, 0).expect("energy"), read.number(2, 8, 0).expect("energy"));
                prop_assert!(now.0 >= registers.0 && now.1 >= registers.1);
                registers = now;
                prop_assert!(read.number(1, 7, 0) == Some(0.0) || read.number(2, 7, 0) == Some(0.0));
                prop_assert!(seen.insert(document));
                adapter.skip(skip);
            }
        }

        /// Adapters of one seed never share a name.
        #[test]
        fn adapters_of_one_seed_have_names_of_their_own(seed: u64, index in 0u32..10_000, other in 0u32..10_000) {
            prop_assert_eq!(meter_number(seed, index) == meter_number(seed, other), index == other);
        }
    }
}
