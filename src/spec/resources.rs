//! `resources`, `duration`, `spend` and `modes`: what a stage may hold and how long it takes.
//!
//! Layers of resources (`[defaults]`, stage, mode) are laid over each other key by key before they are settled. Knows
//! no device: whether a request can be met is the planner's question.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::keys::{AUTO, COUNT, CPUS, DEVICES, ModeKey, PREFER, ResourceKey};
use super::problem::did_you_mean;
use super::tree::{Content, Node};
use super::{Duration, Gpus, Mode, Problem, Resources, Span};
use crate::units::{Bytes, Cpus, Share};

/// Resources as one table wrote them: what is absent is open to the layer below.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    cpus: Option<Cpus>,
    memory: Option<Bytes>,
    gpus: Option<WantedGpus>,
    gpu_memory: Option<WantedMemory>,
    custom: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
enum WantedMemory {
    Exactly(Bytes),
    /// As much as it is found to need.
    Auto,
}

#[derive(Clone, Copy, Debug)]
enum WantedGpus {
    Exactly(Gpus),
    Prefer,
}

impl Wanted {
    /// Returns these over those of the layer below.
    pub(super) fn over(mut self, below: &Self) -> Self {
        // Who asks for no GPU asks for none of its memory either.
        let no_gpu = matches!(self.gpus, Some(WantedGpus::Exactly(Gpus::None)));
        if !no_gpu {
            self.gpu_memory = self.gpu_memory.or(below.gpu_memory);
        }
        self.cpus = self.cpus.or(below.cpus);
        self.memory = self.memory.or(below.memory);
        self.gpus = self.gpus.or(below.gpus);
        for (name, count) in &below.custom {
            self.custom.entry(name.clone()).or_insert(*count);
        }
        self
    }

    /// Returns what is held, what of devices once its need of memory is known, and what is held instead when there is no
    /// device for it.
    fn settle(&self) -> (Resources, Option<Gpus>, Option<Resources>) {
        let gpu_memory = match self.gpu_memory {
            Some(WantedMemory::Exactly(memory)) => memory,
            Some(WantedMemory::Auto) | None => Bytes::ZERO,
        };
        let unsaid = if self.gpu_memory.is_some() { Gpus::Shared } else { Gpus::None };
        let gpus = match self.gpus {
            Some(WantedGpus::Exactly(gpus)) => gpus,
            Some(WantedGpus::Prefer) if self.gpu_memory.is_none() => Gpus::Whole(1),
            Some(WantedGpus::Prefer) | None => unsaid,
        };
        let auto =
            matches!(self.gpu_memory, Some(WantedMemory::Auto)).then_some(gpus).filter(|gpus| *gpus != Gpus::None);
        let gpus = if auto.is_some() { gpus.whole() } else { gpus };
        let held = Resources {
            cpus: self.cpus.unwrap_or(Cpus::ONE),
            memory: self.memory.unwrap_or_default(),
            gpus,
            gpu_memory,
            alone: false,
            custom: self.custom.iter().filter(|(_, count)| **count > 0).map(|(k, v)| (k.clone(), *v)).collect(),
            suspend: false,
        };
        let instead = matches!(self.gpus, Some(WantedGpus::Prefer)).then(|| Resources {
            gpus: Gpus::None,
            gpu_memory: Bytes::ZERO,
            ..held.clone()
        });
        (held, auto, instead)
    }
}

/// Reads `resources`.
pub(super) fn wanted(decoder: &mut Decoder<'_>, node: &Node) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(table) = decoder.table(node, "a table like { cpus = 2, memory = \"1GiB\" }") else {
        return wanted;
    };
    let (known, rest) = Decoder::fields_and_rest::<ResourceKey>(table);
    let mut gpu_memory_span = None;
    for (key, entry) in known {
        match key {
            ResourceKey::Cpus => wanted.cpus = decoder.fixed(&entry.node, 3, CPUS).map(Cpus),
            ResourceKey::Memory => wanted.memory = decoder.quantity(&entry.node),
            ResourceKey::Gpus => wanted.gpus = gpus(decoder, &entry.node),
            ResourceKey::GpuMemory => {
                wanted.gpu_memory = gpu_memory(decoder, &entry.node);
                gpu_memory_span = Some(entry.node.span.clone());
            }
        }
    }
    if let (Some(WantedGpus::Exactly(Gpus::None)), Some(span), Some(_)) =
        (wanted.gpus, gpu_memory_span, wanted.gpu_memory)
    {
        let help = "leave `gpus` out to share a device, or leave `gpu_memory` out";
        decoder.report(Problem::new(span, "`gpu_memory` is asked for, but `gpus = 0` asks for no device").help(help));
    }
    for entry in rest {
        let fields = <ResourceKey as super::decode::Key>::FIELDS.iter().map(|field| field.word);
        // A custom resource could have any name; one that is nearly a built-in name is a slip of the pen, and so is one
        // that is given a size.
        let is_size = matches!(&entry.node.content, Content::Text(text) if text.parse::<Bytes>().is_ok());
        if is_size || did_you_mean(&entry.key.text, fields.clone()).is_some() {
            decoder.unknown("resource", &entry.key, fields);
        } else if decoder.check_name(&entry.key)
            && let Some(count) = decoder.whole(&entry.node, COUNT)
        {
            wanted.custom.insert(entry.key.text.clone(), count.unsigned_abs());
        }
    }
    wanted
}

fn gpu_memory(decoder: &mut Decoder<'_>, node: &Node) -> Option<WantedMemory> {
    if matches!(&node.content, Content::Text(text) if text == AUTO) {
        return Some(WantedMemory::Auto);
    }
    if let Content::Text(text) = &node.content
        && (text.eq_ignore_ascii_case(AUTO) || did_you_mean(text, [AUTO]).is_some())
    {
        let problem = Problem::new(node.span.clone(), format!("`{}` is not a memory size", text.escape_debug()));
        decoder.report(problem.help(format!("did you mean `{AUTO}`?")));
        return None;
    }
    let memory = decoder.quantity(node)?;
    if memory == Bytes::ZERO {
        decoder.report(Problem::new(node.span.clone(), "a share of a device needs some of its memory"));
        return None;
    }
    Some(WantedMemory::Exactly(memory))
}

fn gpus(decoder: &mut Decoder<'_>, node: &Node) -> Option<WantedGpus> {
    const EXPECTED: &str = "a whole number of devices, a share of one below 1, or \"prefer\"";
    match &node.content {
        Content::Text(text) if text == PREFER => Some(WantedGpus::Prefer),
        Content::Text(text) => {
            let problem = Problem::new(node.span.clone(), format!("`{}` is not {EXPECTED}", text.escape_debug()));
            decoder.report(problem.help(match did_you_mean(text, [PREFER]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write `gpus = 1`, `gpus = 0.5` or `gpus = \"prefer\"`".to_owned(),
            }));
            None
        }
        Content::Int(_) => whole_gpus(decoder.whole(node, DEVICES)?),
        Content::Float(number) if number.fract() == 0.0 => {
            whole_gpus(i64::try_from(decoder.fixed(node, 0, DEVICES_AS_NUMBER)?).unwrap_or(i64::MAX))
        }
        Content::Float(number) if *number > 1.0 => {
            let problem = Problem::new(node.span.clone(), format!("{number} devices cannot be held"));
            decoder.report(problem.help("write whole devices, like 2, or a share of one below 1, like 0.5"));
            None
        }
        Content::Float(_) => {
            let millionths = decoder.fixed(node, 6, 0.0..=1.0)?;
            let share = Share(u32::try_from(millionths).unwrap_or(u32::MAX));
            Some(WantedGpus::Exactly(if share == Share::WHOLE { Gpus::Whole(1) } else { Gpus::Share(share) }))
        }
        Content::Bool(_) | Content::Date | Content::Array(_) | Content::Table(_) | Content::Broken => {
            decoder.mismatch(node, EXPECTED);
            None
        }
    }
}

/// [`DEVICES`] for a number that is written with a point: `2.0`.
const DEVICES_AS_NUMBER: std::ops::RangeInclusive<f64> = 0.0..=1_024.0;

fn whole_gpus(count: i64) -> Option<WantedGpus> {
    let count = u32::try_from(count).ok()?;
    Some(WantedGpus::Exactly(if count == 0 { Gpus::None } else { Gpus::Whole(count) }))
}

/// One way to run a stage, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenMode {
    pub(super) wanted: Wanted,
    pub(super) duration: Duration,
    pub(super) spend: BTreeMap<String, u64>,
    pub(super) span: Span,
}

impl WrittenMode {
    /// Returns the mode over the resources of the layer below, and behind it the one that takes its place where there
    /// is no device.
    pub(super) fn settle(self, below: &Wanted) -> impl Iterator<Item = Mode> {
        let (resources, auto, instead) = self.wanted.over(below).settle();
        let (duration, spend, span) = (self.duration, self.spend, self.span);
        let mode = Mode { resources, duration, spend, fallback: false, auto, seen: Bytes::ZERO, span };
        let fallback = instead.map(|resources| Mode { resources, fallback: true, auto: None, ..mode.clone() });
        std::iter::once(mode).chain(fallback)
    }
}

/// Reads `modes`.
pub(super) fn modes(decoder: &mut Decoder<'_>, node: &Node) -> Vec<WrittenMode> {
    let Some(nodes) = decoder.array(node, "an array of modes, each { resources = …, duration = … }") else {
        return Vec::new();
    };
    if nodes.is_empty() {
        let problem = Problem::new(node.span.clone(), "`modes` is empty: the stage could not run in any way");
        decoder.report(problem.help("leave it out, or write at least one mode"));
    }
    nodes.iter().filter_map(|node| mode(decoder, node)).collect()
}

fn mode(decoder: &mut Decoder<'_>, node: &Node) -> Option<WrittenMode> {
    let table = decoder.table(node, "a mode like { resources = { gpus = 1 }, duration = \"10m\" }")?;
    let mut mode = WrittenMode { span: node.span.clone(), ..WrittenMode::default() };
    for (key, entry) in decoder.fields::<ModeKey>(table) {
        match key {
            ModeKey::Resources => mode.wanted = wanted(decoder, &entry.node),
            ModeKey::Duration => mode.duration = duration(decoder, &entry.node),
            ModeKey::Spend => mode.spend = spend(decoder, &entry.node),
        }
    }
    Some(mode)
}

/// Reads `duration`.
pub(super) fn duration(decoder: &mut Decoder<'_>, node: &Node) -> Duration {
    let Content::Table(table) = &node.content else {
        return Duration { base: decoder.quantity(node), by_model: BTreeMap::new() };
    };
    let times = table.entries.iter().filter_map(|entry| {
        let time = decoder.quantity(&entry.node)?;
        Some((entry.key.text.clone(), time))
    });
    Duration { base: None, by_model: times.collect() }
}

/// Reads `spend`.
pub(super) fn spend(decoder: &mut Decoder<'_>, node: &Node) -> BTreeMap<String, u64> {
    let Some(table) = decoder.table(node, "a table like { money = 3 }") else {
        return BTreeMap::new();
    };
    let mut spend = BTreeMap::new();
    for entry in &table.entries {
        if decoder.check_name(&entry.key)
            && let Some(amount) = decoder.whole(&entry.node, COUNT)
        {
            spend.insert(entry.key.text.clone(), amount.unsigned_abs());
        }
    }
    spend
}
