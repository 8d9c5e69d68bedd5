//! A household's power from second to second: a base load, a fridge, people in the morning and the evening, appliances,
//! and on most roofs the sun, with clouds.

use std::f64::consts::{PI, TAU};

use super::random::Random;

const DAY_S: i64 = 86_400;
const YEAR_S: f64 = 365.25 * 86_400.0;

/// Austria's mean time: the sun is highest and people wake by it. No summer time, so that a day is a day.
const OFFSET_S: i64 = 3600;

/// Vienna, in radians.
const LATITUDE: f64 = 48.2 * PI / 180.0;

/// How quickly clouds change, in seconds.
const CLOUDS_S: f64 = 600.0;

/// What people switch on: watts, how long in seconds, how often a day.
const APPLIANCES: [(f64, f64, f64); 5] =
    [(2000.0, 180.0, 5.0), (1200.0, 90.0, 3.0), (2200.0, 2400.0, 0.7), (1900.0, 5400.0, 0.5), (3500.0, 420.0, 1.5)];

/// One household.
#[derive(Debug)]
pub(super) struct Household {
    random: Random,
    base_w: f64,
    fridge_period_s: f64,
    fridge_phase_s: f64,
    /// Watts and the second at which it ends.
    running: Vec<(f64, f64)>,
    /// Peak power of the panels; 0 without.
    panels_w: f64,
    /// Normal with deviation 1; the higher, the clearer.
    sky: f64,
}

impl Household {
    /// One with panels if `sunny`, else most likely so.
    pub(super) fn new(mut random: Random, sunny: bool) -> Self {
        let panels = random.unit() < 0.75 || sunny;
        let panels_w = if panels { random.between(3000.0, 9000.0) } else { 0.0 };
        let fridge_period_s = random.between(2400.0, 4200.0);
        Self {
            base_w: random.between(70.0, 220.0),
            fridge_period_s,
            fridge_phase_s: random.between(0.0, fridge_period_s),
            running: Vec::new(),
            panels_w,
            sky: random.normal(),
            random,
        }
    }

    pub(super) fn has_panels(&self) -> bool {
        self.panels_w > 0.0
    }

    /// Watts taken from the grid (negative: given to it) during the `step_s` seconds from `unix_ms` on.
    pub(super) fn net_w(&mut self, unix_ms: i64, step_s: f64) -> i64 {
        let at_s = unix_ms as f64 / 1000.0;
        let day_s = (unix_ms.div_euclid(1000) + OFFSET_S).rem_euclid(DAY_S) as f64;
        (self.load_w(at_s, day_s, step_s) - self.sun_w(at_s, day_s, step_s)).round() as i64
    }

    fn load_w(&mut self, at_s: f64, day_s: f64, step_s: f64) -> f64 {
        let awake = awake(day_s / 3600.0);
        self.running.retain(|(_, end_s)| *end_s > at_s);
        for (watts, seconds, a_day) in APPLIANCES {
            // Weighted by who is awake; on average a little more than a third of the day.
            let rate = a_day * awake / 0.4 / DAY_S as f64;
            if self.random.unit() < 1.0 - (-rate * step_s).exp() {
                let end_s = at_s + seconds * self.random.between(0.6, 1.4);
                self.running.push((watts * self.random.between(0.85, 1.15), end_s));
            }
        }
        let cycle = (at_s + self.fridge_phase_s).rem_euclid(self.fridge_period_s) / self.fridge_period_s;
        let fridge = if cycle < 0.35 { 85.0 } else { 0.0 };
        let appliances: f64 = self.running.iter().map(|(watts, _)| watts).sum();
        let noise = 1.0 + 0.02 * self.random.normal();
        (self.base_w + fridge + 260.0 * awake + appliances) * noise.max(0.5)
    }

    fn sun_w(&mut self, at_s: f64, day_s: f64, step_s: f64) -> f64 {
        let keep = (-step_s / CLOUDS_S).exp();
        self.sky = self.sky * keep + (1.0 - keep * keep).sqrt() * self.random.normal();
        if self.panels_w == 0.0 {
            return 0.0;
        }
        // Cooper's formula for the declination; the year begins ten days after the solstice.
        let declination = -23.45_f64.to_radians() * (TAU * (at_s / YEAR_S + 10.0 / 365.25)).cos();
        let hour_angle = (day_s - 43_200.0) / DAY_S as f64 * TAU;
        let height = LATITUDE.sin() * declination.sin() + LATITUDE.cos() * declination.cos() * hour_angle.cos();
        let clear = 0.15 + 0.85 / (1.0 + (-2.0 * (self.sky + 0.4)).exp());
        self.panels_w * height.max(0.0) * clear * 0.9
    }
}

/// 0 while everybody sleeps to 1 when everybody is at home and busy.
fn awake(hour: f64) -> f64 {
    let bump = |at: f64, width: f64| (-((hour - at) / width).powi(2)).exp();
    (0.8 * bump(7.0, 1.2) + 0.45 * bump(12.5, 1.8) + bump(19.5, 2.4)).clamp(0.02, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-06-21T00:00:00Z
    const SUMMER_MS: i64 = 1_782_000_000_000;

    fn mean_w(household: &mut Household, from_h: i64, to_h: i64) -> f64 {
        let seconds = (from_h * 3600..to_h * 3600).step_by(10);
        let count = seconds.clone().count() as f64;
        seconds.map(|s| household.net_w(SUMMER_MS + (s - OFFSET_S) * 1000, 10.0) as f64).sum::<f64>() / count
    }

    /// The day looks like one: it draws little at night, gives at noon, and draws most in the evening.
    #[test]
    fn a_day_has_a_night_a_noon_and_an_evening() {
        let mut night = 0.0;
        let mut noon = 0.0;
        let mut evening = 0.0;
        for stream in 0..20 {
            let mut household = Household::new(Random::new(7, stream), true);
            household.panels_w = 5000.0;
            night += mean_w(&mut household, 1, 4) / 20.0;
            noon += mean_w(&mut household, 11, 14) / 20.0;
            evening += mean_w(&mut household, 20, 22) / 20.0;
        }
        assert!((50.0..500.0).contains(&night), "{night}");
        assert!(noon < -500.0, "{noon}");
        assert!(evening > night + 100.0, "{evening}");
    }
}
