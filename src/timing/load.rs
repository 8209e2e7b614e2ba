//! The load matrix `L = T / P`: how long a task takes on a device.
//!
//! One rule holds everywhere: a duration declared for the device's model is taken as it is; otherwise the declared
//! duration is divided by the device's speed and rounded up to a whole millisecond. Does not know what fits where.

use crate::fleet::{Device, Node};
use crate::spec::Duration;
use crate::units::Millis;

/// What a stage is taken to need where nothing says how long it takes: one minute, on a device of speed 1. Short enough
/// that a stage with a declared duration of hours dominates the plan, long enough that starting it costs nothing.
pub const DEFAULT_DURATION: Millis = Millis(60_000);

/// Where a duration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The pipeline file says it.
    Declared,
    /// Nothing says it: [`DEFAULT_DURATION`].
    Default,
}

/// One entry of the load matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// How long the task takes.
    pub time: Millis,
    /// Where that comes from.
    pub origin: Origin,
}

impl Load {
    /// Returns how long a mode takes on a device.
    #[must_use]
    pub fn on_device(duration: &Duration, device: &Device) -> Self {
        Self::on_model(duration, &device.model, device.speed.time_for(Self::at_speed_one(duration)))
    }

    /// Returns how long a mode without devices takes on a node.
    #[must_use]
    pub fn on_node(duration: &Duration, node: &Node) -> Self {
        Self::divided(duration, node.speed.time_for(Self::at_speed_one(duration)))
    }

    /// Returns how long a mode takes at speed 1: what is divided.
    #[must_use]
    pub fn at_speed_one(duration: &Duration) -> Millis {
        duration.base.unwrap_or(DEFAULT_DURATION)
    }

    /// As [`on_device`](Self::on_device), on a device of a model, where it is known what
    /// [`at_speed_one`](Self::at_speed_one) comes to there.
    #[must_use]
    pub fn on_model(duration: &Duration, model: &str, quotient: Millis) -> Self {
        let listed = duration.by_model.get(model);
        listed.map_or_else(|| Self::divided(duration, quotient), |time| Self { time: *time, origin: Origin::Declared })
    }

    /// As [`on_node`](Self::on_node), likewise. A model that is not listed takes as long as the slowest one that is, where
    /// there is no duration for speed 1.
    #[must_use]
    pub fn divided(duration: &Duration, quotient: Millis) -> Self {
        match (duration.base, duration.by_model.values().max()) {
            (Some(_), _) => Self { time: quotient, origin: Origin::Declared },
            (None, Some(slowest)) => Self { time: *slowest, origin: Origin::Declared },
            (None, None) => Self { time: quotient, origin: Origin::Default },
        }
    }
}

/// `L[device][task]`: the time of a task on a device, in its fastest mode there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadMatrix {
    /// `[n_rows]`: ids of the devices, then `node/cpu` of every host that some task can run on without a device.
    pub rows: Vec<String>,
    /// `[n_rows][n_tasks]`; `None` where the task can never run.
    pub times: Vec<Vec<Option<Millis>>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::units::Speed;

    fn device(model: &str, speed: u64) -> Device {
        Device { model: model.to_owned(), speed: Speed(speed), ..Device::default() }
    }

    #[test]
    fn a_duration_declared_for_the_model_is_not_divided() {
        let by_model = BTreeMap::from([("H100".to_owned(), Millis(600))]);
        let duration = Duration { base: Some(Millis(1_000)), by_model };
        let load = |device: &Device| Load::on_device(&duration, device).time;
        assert_eq!(load(&device("H100", 4_000_000)), Millis(600));
        assert_eq!(load(&device("A100", 3_000_000)), Millis(334));
    }

    #[test]
    fn an_unlisted_model_takes_as_long_as_the_slowest_listed_one() {
        let by_model = BTreeMap::from([("A".to_owned(), Millis(5)), ("B".to_owned(), Millis(9))]);
        let duration = Duration { base: None, by_model };
        let load = Load::on_device(&duration, &device("C", 1_000_000));
        assert_eq!(load, Load { time: Millis(9), origin: Origin::Declared });
    }

    #[test]
    fn without_any_duration_the_default_is_named_as_such() {
        let load = Load::on_node(&Duration::default(), &Node { speed: Speed(2_000_000), ..Node::default() });
        assert_eq!(load, Load { time: Millis(30_000), origin: Origin::Default });
    }
}
