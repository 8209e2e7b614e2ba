//! The keys of a fleet file: the one table that decoding, "did you mean" and the JSON Schema read.

use std::ops::RangeInclusive;

use crate::spec::decode::{Form, Key};

/// CPUs of one node, exact in thousandths.
pub(super) const CPUS: RangeInclusive<f64> = 0.0..=1_000_000.0;
/// Devices of one entry: more than any node has.
pub(super) const COUNT: RangeInclusive<i64> = 1..=1_024;
/// Speeds as [`Speed`](crate::units::Speed) bounds them: zero would make every task endless.
pub(super) const SPEED: RangeInclusive<f64> = 0.001..=1_000_000.0;
/// Countable resources and budgets: sums over a million nodes still fit into 64 bits.
pub(super) const AMOUNT: RangeInclusive<i64> = 0..=1_000_000_000_000;
/// Watts of one device.
pub(super) const WATTS: RangeInclusive<i64> = 0..=100_000;
/// What may join the devices of one entry.
pub(super) const LINKS: [&str; 2] = ["nvlink", "pcie"];

/// The whole file.
pub const FORM: Form = Form::Table(TopKey::FIELDS, None);

crate::keys! {
    /// Keys at the top of the file.
    pub enum TopKey {
        /// Name of the fleet; the file's name without its ending when absent.
        Name = "name": Form::Name,
        /// The hosts.
        Node = "node": Form::List(&Form::Table(NodeKey::FIELDS, None)),
        /// Connections between hosts.
        Link = "link": Form::List(&Form::Table(LinkKey::FIELDS, None)),
        /// What may be spent over a whole plan, by name.
        Budgets = "budgets": Form::Map(&Form::Whole(AMOUNT)),
    }
}

crate::keys! {
    /// Keys of a `[[node]]`.
    pub enum NodeKey {
        /// Its name, which no other node has.
        Name = "name": Form::Name,
        /// CPUs that tasks may use; not a limit when absent.
        Cpus = "cpus": Form::Number(CPUS),
        /// Memory that tasks may use; not a limit when absent.
        Memory = "memory": Form::Size,
        /// Speed for tasks without a GPU; 1.0 when absent.
        Speed = "speed": Form::Number(SPEED),
        /// Other countable resources, by name.
        Resources = "resources": Form::Map(&Form::Whole(AMOUNT)),
        /// Its GPUs, each entry for so many alike.
        Gpu = "gpu": Form::List(&Form::Table(GpuKey::FIELDS, None)),
    }
}

crate::keys! {
    /// Keys of a `[[node.gpu]]`.
    pub enum GpuKey {
        /// How many; 1 when absent.
        Count = "count": Form::Whole(COUNT),
        /// The model, as stages name it in `duration`.
        Model = "model": Form::Name,
        /// Memory of each.
        Memory = "memory": Form::Size,
        /// What of that no task can have: a size, a part like "2%", or both like "512MiB+2%"; nothing when absent.
        Headroom = "headroom": Form::Text,
        /// Speed relative to the device that durations are declared for; 1.0 when absent.
        Speed = "speed": Form::Number(SPEED),
        /// What joins these GPUs; "pcie" when absent.
        Link = "link": Form::Words(&LINKS),
        /// Watts that each takes while it idles; with `active_watts`, for plans that take little energy.
        IdleWatts = "idle_watts": Form::Whole(WATTS),
        /// Watts that each takes while all of it is in use.
        ActiveWatts = "active_watts": Form::Whole(WATTS),
    }
}

crate::keys! {
    /// Keys of a `[[link]]`.
    pub enum LinkKey {
        /// The names of two nodes.
        Between = "between": Form::List(&Form::Name),
        /// Its rate, the same in both directions.
        Bandwidth = "bandwidth": Form::Rate,
    }
}
