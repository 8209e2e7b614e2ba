//! What is said where tasks could not take turns at a device.

use super::{load, said};

fn said_of(lines: &str) -> String {
    said(&format!("[stage.a]\nrun = 'x'\n{lines}\n")).join("; ")
}

fn may_be_suspended(lines: &str) -> Vec<bool> {
    let (pipeline, _) = load(&format!("[stage.a]\nrun = 'x'\n{lines}\n"));
    pipeline.stages[0].modes.iter().map(|mode| mode.resources.suspend).collect()
}

#[test]
fn a_share_of_one_device_may_be_suspended_and_is_not_unless_it_says_so() {
    let share = "resources = { gpus = 0.5, gpu_memory = '1GiB' }";
    assert_eq!(may_be_suspended(&format!("suspend = true\n{share}")), [true]);
    assert_eq!(may_be_suspended(&format!("suspend = false\n{share}")), [false]);
    assert_eq!(may_be_suspended(share), [false]);
}

#[test]
fn of_several_modes_those_with_a_share_may_be_suspended() {
    let modes = "modes = [{ resources = { gpus = 0.5 } }, { resources = { gpus = 2 } }, { resources = { cpus = 8 } }]";
    assert_eq!(may_be_suspended(&format!("suspend = true\n{modes}")), [true, false, false]);
}

#[test]
fn where_it_has_no_meaning_it_is_refused_with_the_reason() {
    for (resources, reason) in [
        ("cpus = 2", "without a GPU"),
        ("gpu_memory = '1GiB'", "without a share"),
        ("gpus = 1", "a whole device, which nobody shares"),
        ("gpus = 2", "collective operations time out"),
    ] {
        let said = said_of(&format!("suspend = true\nresources = {{ {resources} }}"));
        assert!(said.starts_with("3:1 suspend: ") && said.contains(reason), "{resources}: {said}");
    }
    assert!(said_of("suspend = 'yes'").starts_with("3:11 'yes': "), "{}", said_of("suspend = 'yes'"));
}

#[test]
fn a_second_attempt_beside_one_that_may_be_suspended_is_refused() {
    let said =
        said_of("outputs = ['o']\nsuspend = true\nreplicas = 2\nresources = { gpus = 0.5, gpu_memory = '1GiB' }");
    assert!(said.contains("4:1 suspend: `suspend` beside a second attempt"), "{said}");
}
