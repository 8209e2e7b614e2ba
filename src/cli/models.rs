//! Stages that say in vain how long they take on a model, since the fleet has none or calls it otherwise: one warning for
//! all of them.

use std::collections::BTreeSet;

use super::output;
use crate::fleet::Fleet;
use crate::report::text;
use crate::spec::problem::did_you_mean;
use crate::spec::{Gpus, Mode, Pipeline};

/// Says which stages list durations only for models that no device of the fleet has, or for one that it calls otherwise:
/// what they are taken to need there is what the slowest of those listed needs.
pub(super) fn say_which_are_missing(pipeline: &Pipeline, fleet: &Fleet) {
    if let Some(words) = missing(pipeline, fleet) {
        output::warn(&words);
    }
}

fn missing(pipeline: &Pipeline, fleet: &Fleet) -> Option<String> {
    let here: BTreeSet<&str> = fleet.devices.iter().map(|device| device.model.as_str()).collect();
    if here.is_empty() {
        return None;
    }
    let lists = |mode: &&Mode| mode.resources.gpus != Gpus::None && !mode.duration.by_model.is_empty();
    let of_stage = pipeline.stages.iter().filter_map(|stage| {
        let strangers: BTreeSet<&str> =
            stage.modes.iter().filter(lists).flat_map(|mode| strangers(mode, &here)).collect();
        let near = strangers.iter().find_map(|model| Some((*model, meant(model, &here)?)));
        let models = strangers.iter().map(|model| text::visible(model)).collect::<Vec<_>>().join(", ");
        let near = near.map_or(String::new(), |(written, near)| {
            format!("; for `{}`, did you mean `{}`?", text::visible(written), text::visible(near))
        });
        (!strangers.is_empty()).then(|| format!("`{}` ({models}{near})", text::visible(&stage.name)))
    });
    let stages: Vec<String> = of_stage.collect();
    let here = here.iter().map(|model| text::visible(model)).collect::<Vec<_>>().join(", ");
    (!stages.is_empty()).then(|| {
        format!(
            "a model that `duration` does not list is taken to need as long as the slowest that it lists, and no device is one of \
             these: {} (there are {here})",
            stages.join(", ")
        )
    })
}

/// Returns the models that a mode lists in vain: all, where no device is one of them, else those that are written almost
/// like one that is there and not listed itself.
fn strangers<'m>(mode: &'m Mode, here: &BTreeSet<&str>) -> Vec<&'m str> {
    let listed = &mode.duration.by_model;
    let names = || listed.keys().map(String::as_str);
    let none = !names().any(|model| here.contains(model));
    let almost = |model: &str| longer(model, here).is_some_and(|near| !listed.contains_key(near));
    names().filter(|model| none || !here.contains(model) && almost(model)).collect()
}

/// Returns the model that was probably meant.
fn meant<'m>(written: &str, here: &BTreeSet<&'m str>) -> Option<&'m str> {
    longer(written, here).or_else(|| did_you_mean(written, here.iter().copied()))
}

/// Returns the model of which this is the beginning, as `A100` is of `A100-80GB`, or all but its dashes, as `RTX4090` is of
/// `RTX-4090`.
fn longer<'m>(written: &str, here: &BTreeSet<&'m str>) -> Option<&'m str> {
    let begins = |model: &&str| model.strip_prefix(written).is_some_and(|rest| rest.starts_with('-'));
    here.iter().copied().find(|model| begins(model) || model.replace('-', "") == written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Device;
    use crate::graph;
    use crate::spec::Source;

    fn said(resources: &str, duration: &str, models: &[&str]) -> Option<String> {
        let text = format!("[stage.a]\nrun = 'x'\nresources = {{ {resources} }}\nduration = {duration}\n");
        let source = Source { name: "p.toml".to_owned(), text };
        let (pipeline, _) = graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file");
        let device = |model: &&str| Device { model: (*model).to_owned(), ..Device::default() };
        missing(&pipeline, &Fleet { devices: models.iter().map(device).collect(), ..Fleet::default() })
    }

    #[test]
    fn a_stage_that_lists_only_models_that_are_not_there_is_named_with_what_was_meant() {
        let words = |duration: &str, models: &[&str]| said("gpus = 1", duration, models).unwrap_or_default();
        let near = words("{ A100 = '1h', L4 = '3h' }", &["A100-80GB", "RTX-4090"]);
        assert!(near.contains("`a` (A100, L4; for `A100`, did you mean `A100-80GB`?)"), "{near}");
        assert!(words("{ RTX4090 = '1h' }", &["RTX-4090"]).contains("did you mean `RTX-4090`?"));
        let far = words("{ nosuch = '1s' }", &["H100"]);
        assert!(far.contains("`a` (nosuch) (there are H100)"), "{far}");
    }

    #[test]
    fn beside_a_model_that_is_there_one_that_is_written_almost_like_another_is_named() {
        let words = |listed: &str| said("gpus = 1", listed, &["A100-80GB", "L4"]).unwrap_or_default();
        let near = words("{ A100 = '1h', L4 = '3h' }");
        assert!(near.contains("`a` (A100; for `A100`, did you mean `A100-80GB`?)"), "{near}");
        assert_eq!(words("{ A100-80GB = '1h', A100 = '2h', L4 = '3h' }"), "");
        assert_eq!(words("{ H100 = '1h', L4 = '3h' }"), "", "a file may list what other fleets have");
    }

    #[test]
    fn nothing_is_said_where_one_model_is_there_or_none_is_listed_or_no_gpu_is_asked_for() {
        assert_eq!(said("gpus = 1", "{ A100 = '1h', L4 = '3h' }", &["L4", "T4"]), None);
        assert_eq!(said("gpus = 1", "'1h'", &["T4"]), None);
        assert_eq!(said("cpus = 1", "{ A100 = '1h' }", &["T4"]), None);
        assert_eq!(said("gpus = 1", "{ A100 = '1h' }", &[]), None);
    }
}
