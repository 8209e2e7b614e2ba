//! Stages that say how long they take on models of which the fleet has none: one warning for all of them.

use std::collections::BTreeSet;

use super::output;
use crate::fleet::Fleet;
use crate::report::text;
use crate::spec::problem::did_you_mean;
use crate::spec::{Gpus, Mode, Pipeline};

/// Says which stages list durations only for models that no device of the fleet has: what they are taken to need there is
/// what the slowest of those needs.
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
    let listed = |mode: &Mode| mode.resources.gpus != Gpus::None && !mode.duration.by_model.is_empty();
    let misses =
        |mode: &Mode| listed(mode) && !mode.duration.by_model.keys().any(|model| here.contains(model.as_str()));
    let of_stage = pipeline.stages.iter().filter_map(|stage| {
        let models: BTreeSet<&str> = stage
            .modes
            .iter()
            .filter(|mode| misses(mode))
            .flat_map(|mode| mode.duration.by_model.keys().map(String::as_str))
            .collect();
        let near = models.iter().find_map(|model| Some((*model, meant(model, &here)?)));
        let models = models.iter().map(|model| text::visible(model)).collect::<Vec<_>>().join(", ");
        let near = near.map_or(String::new(), |(written, near)| {
            format!("; for `{}`, did you mean `{}`?", text::visible(written), text::visible(near))
        });
        (!models.is_empty()).then(|| format!("`{}` ({models}{near})", text::visible(&stage.name)))
    });
    let stages: Vec<String> = of_stage.collect();
    let here = here.iter().map(|model| text::visible(model)).collect::<Vec<_>>().join(", ");
    (!stages.is_empty()).then(|| {
        format!(
            "taken to need as long as on the slowest model that `duration` lists, since no device is one of these: {} (there \
             are {here})",
            stages.join(", ")
        )
    })
}

/// Returns the model that was probably meant: one that is spelt alike, or of which this is the beginning, as `A100` is of
/// `A100-80GB`.
fn meant<'m>(written: &str, here: &BTreeSet<&'m str>) -> Option<&'m str> {
    let begins = |model: &&&str| model.strip_prefix(written).is_some_and(|rest| rest.starts_with('-'));
    did_you_mean(written, here.iter().copied()).or_else(|| here.iter().find(begins).copied())
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
    fn nothing_is_said_where_one_model_is_there_or_none_is_listed_or_no_gpu_is_asked_for() {
        assert_eq!(said("gpus = 1", "{ A100 = '1h', L4 = '3h' }", &["L4", "T4"]), None);
        assert_eq!(said("gpus = 1", "'1h'", &["T4"]), None);
        assert_eq!(said("cpus = 1", "{ A100 = '1h' }", &["T4"]), None);
        assert_eq!(said("gpus = 1", "{ A100 = '1h' }", &[]), None);
    }
}
