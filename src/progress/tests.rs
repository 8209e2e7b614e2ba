//! Lines as programs write them, and what they mean.

use super::{Progress, Reader};

fn read(output: &str) -> (Progress, Vec<(String, Option<f64>, f64)>) {
    let (mut reader, mut figures) = (Reader::default(), Vec::new());
    reader.read(output.as_bytes(), |figure| figures.push((figure.name.to_owned(), figure.step, figure.value)));
    (reader.progress(), figures)
}

fn part(output: &str) -> Option<f64> {
    read(output).0.progress
}

fn phase(output: &str) -> Option<String> {
    read(output).0.phase
}

#[test]
fn an_epoch_that_reports_is_over_and_one_that_does_not_has_begun() {
    assert_eq!(part("epoch 3/10 loss=0.1\n"), Some(0.3));
    assert_eq!(part("Epoch 3/10\n"), Some(0.2));
    assert_eq!(part("Epoch [3/10], loss: 0.1\n"), Some(0.3));
    assert_eq!(part("Epoch 3/10\nEpoch 3/10 loss=0.1\n"), Some(0.3));
}

#[test]
fn steps_count_within_their_epoch() {
    assert_eq!(part("Epoch 2/4, step 50/100, loss: 0.3\n"), Some(0.375));
    assert_eq!(part("Epoch [2/4], Step [50/100], Loss: 0.3\n"), Some(0.375));
    assert_eq!(read("Epoch 2/4, step 50/100, loss: 0.3\n").1, [("loss".to_owned(), Some(150.0), 0.3)]);
}

#[test]
fn epochs_may_be_counted_from_zero() {
    assert_eq!(part("Epoch 0/3\nstep 1/2\n"), Some(0.125));
    assert_eq!(part("Epoch 0/3\nEpoch 1/3\nstep 1/2\n"), Some(0.375));
    assert_eq!(phase("Epoch 0/3\nEpoch 1/3\n").as_deref(), Some("epoch 2/4"));
}

#[test]
fn epochs_of_unknown_number_leave_the_whole_unknown() {
    let (progress, figures) = read("Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.300\n");
    assert_eq!((progress.progress, progress.phase.as_deref()), (None, Some("epoch 1, 640/60000")));
    assert_eq!(figures, [("Loss".to_owned(), Some(60_640.0), 2.3)]);
    assert_eq!(progress.loss, Some(2.3));
}

#[test]
fn counts_and_parts_at_the_beginning_need_no_word() {
    assert_eq!(part("[ 40%] Building CXX object\n"), Some(0.4));
    assert_eq!(part("[12/300] compile a.c\n"), Some(0.04));
    assert_eq!(part("(3/4) unpack\n"), Some(0.75));
    assert_eq!(part("12/300 [====>......] - ETA: 3s - loss: 0.5\n"), Some(0.04));
    assert_eq!(part("Progress: 40%\n"), Some(0.4));
    assert_eq!(part("Step 100/1000, lr 1.0e-3\n"), Some(0.1));
}

#[test]
fn a_count_that_may_be_a_date_has_to_grow() {
    assert_eq!(part("processed 12/300 files\n"), None);
    assert_eq!(part("processed 12/300 files\nprocessed 18/300 files\n"), Some(0.06));
    assert_eq!(part("11/21 10:00:00 start\n11/21 10:00:01 on\n11/21 10:00:02 stop\n"), None);
}

#[test]
fn what_only_looks_like_progress_is_none() {
    for line in [
        "2026/11/21 10:00:00 INFO started",
        "reading /data/3/4/x.csv",
        "http://127.0.0.1:8080/1/2",
        "CPU 40%, memory 80%",
        "ratio 3/4.5",
        "epoch 12/10 loss",
        "version 1.2/3",
        "24/7",
        "seed=1 port: 8080",
        "\x1b]0;12/300\x07",
    ] {
        let (progress, figures) = read(&format!("{line}\n"));
        assert_eq!((progress, figures), (Progress::default(), vec![]), "{line}");
    }
}

#[test]
fn nobody_has_done_less_than_nothing() {
    assert_eq!(part("0%|%|-3/10\n"), Some(0.0));
    assert_eq!(part("-5%\n"), None);
}

#[test]
fn figures_are_named_in_several_ways() {
    let named =
        |line: &str| read(&format!("{line}\n")).1.into_iter().map(|(name, _, value)| (name, value)).collect::<Vec<_>>();
    let of = |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>();
    assert_eq!(named("iter 100: loss 2.345, time 12ms"), of(&[("loss", 2.345)]));
    assert_eq!(
        named("{'loss': 0.5, 'learning_rate': 5e-05, 'epoch': 0.5}"),
        of(&[("loss", 0.5), ("learning_rate", 5e-5)])
    );
    assert_eq!(named("{'loss': '0.5', 'epoch': '0.5'}"), of(&[("loss", 0.5)]));
    assert_eq!(named("val_acc = 91.5%"), of(&[("val_acc", 0.915)]));
    assert_eq!(named(r#"{"step": 3, "loss": 0.25}"#), of(&[("loss", 0.25)]));
    assert!(matches!(&named("loss: nan, lr: 0.1")[..], [(loss, value), _] if loss == "loss" && value.is_nan()));
    assert_eq!(named("{'loss': '-inf', 'epoch': 1.0}"), of(&[("loss", f64::NEG_INFINITY)]));
    assert_eq!(named("loss: none, lr: info"), of(&[]));
    assert_eq!(read("epoch: nan\nstep: inf\n"), (Progress::default(), vec![]));
    assert_eq!(named("epoch 1/2 loss: 0.5 eta: 0:01:00 time: 3.5"), of(&[("loss", 0.5)]));
}

#[test]
fn a_line_that_has_begun_counts_but_not_its_last_number() {
    assert_eq!(part("step 12/30"), None);
    assert_eq!(part("step 12/300,"), Some(0.04));
    assert_eq!(part(" 40%|████      | 120/300 [00:01<00:02, 99.5it/s]"), Some(0.4));
    assert_eq!(read("loss: 0.1").1, []);
}

#[test]
fn after_the_last_epoch_something_else_begins() {
    let trained = "Epoch 1/1\n8/8 - 1s - loss: 0.5\n";
    assert_eq!(part(trained), Some(1.0));
    assert_eq!(part(&format!("{trained}2/8 - 1s\n")), Some(0.25));
}

#[test]
fn an_inner_bar_fills_the_step_of_the_outer_one() {
    let nested = "\r 33%|███  | 1/3 [00:00<00:00, 9it/s]\n\r 50%|██  | 2/4 [00:00<00:00, 9it/s]\x1b[A";
    assert_eq!(part(nested), Some(0.5));
    assert_eq!(phase(nested).as_deref(), Some("1/3, 2/4"));
}

#[test]
fn what_a_logger_puts_before_its_lines_is_no_title() {
    let line = |i: u32| format!("2026-11-21 10:01:0{i},123 INFO trainer: it {}/500\n", 100 * i);
    assert_eq!(phase(&(line(1) + &line(2))).as_deref(), Some("it 200/500"));
    assert_eq!(phase("INFO:root:step 3/4\n").as_deref(), Some("INFO:root:step 3/4"));
    assert_eq!(phase("[2026-11-21 10:01:00] step 3/4\n").as_deref(), Some("step 3/4"));
}

#[test]
fn a_bar_with_shortened_counts_shows_whole_ones() {
    let bar = "data:  46%|####      | 2.14G/4.66G [00:10<00:12, 212MB/s]";
    assert_eq!(phase(bar).as_deref(), Some("data 2140000000/4660000000"));
}

#[test]
fn a_rate_may_stand_apart_from_its_unit() {
    let rates = |line: &str| read(line).1.into_iter().map(|(name, _, value)| (name, value)).collect::<Vec<_>>();
    assert_eq!(rates("step 1/2, 1.2k samples/s\n"), [("samples/s".to_owned(), 1_200.0)]);
    assert_eq!(rates("step 1/2: 512 tokens/s, loss=0.5\n"), [("tokens/s".to_owned(), 512.0), ("loss".to_owned(), 0.5)]);
    assert_eq!(rates("step 1/2: v2 files/src and 3 files/s3\n"), []);
}

#[test]
fn a_shard_that_is_loaded_is_no_part_of_the_work_until_the_next_one_is() {
    assert_eq!(part("loaded shard 3/4\n"), None);
    assert_eq!(part("loaded shard 1/4\nloaded shard 2/4\n"), Some(0.5));
}
