//! What each view of a comparison says.

use super::*;

fn trial(makespan: u64, seed: u64) -> Trial {
    let usage = Usage { memory: Some(0.5), share: Some(0.25), fragmentation: Some(0.1) };
    Trial {
        seed,
        makespan: Millis(makespan),
        value: makespan.into(),
        value_bound: 1_000,
        lower_bound: Millis(1_000),
        bound_by: "GPUs",
        takes_turns: false,
        evaluations: 7,
        planning_us: 1_250,
        usage,
    }
}

fn example() -> Comparison {
    let entry = |policy: &str, trials| Entry { policy: policy.into(), trials, live: None };
    Comparison {
        pipeline: "digits".into(),
        tasks: 12,
        fleet: "<two>".into(),
        devices: 2,
        objective: Objective::Makespan,
        entries: vec![
            entry("fifo+first-fit", Ok(vec![trial(1_500, 1)])),
            entry("ga", Ok(vec![trial(1_100, 1), trial(1_000, 2), trial(1_050, 3)])),
            entry("auto", Err("no \"choice\", none".into())),
        ],
        chart: None,
    }
}

#[test]
fn the_table_has_medians_and_spreads() {
    insta::assert_snapshot!(example().text(Colour::Never, None), @r#"
    digits on <two>: 12 tasks, 2 GPUs; no plan ends before 1s (GPUs)
    policy          makespan  spread     gap  memory   share  fragments  planning  schedules
    fifo+first-fit     1.50s          50.0 %  50.0 %  25.0 %     10.0 %     1.2ms          7
    ga                 1.05s   9.5 %   5.0 %  50.0 %  25.0 %     10.0 %     1.2ms          7
    auto                                                                                      no "choice", none
    "#);
}

#[test]
fn csv_quotes_what_must_be_quoted_and_leaves_the_unknown_empty() {
    insta::assert_snapshot!(csv(&[example()]).replace("\r\n", "\n"), @r#"
    pipeline,tasks,fleet,devices,policy,seeds,error,makespan_ms,makespan_least_ms,makespan_most_ms,lower_bound_ms,bound_by,objective,objective_value,objective_least,objective_most,objective_bound,gap,optimal,gpu_memory_use,gpu_share_use,fragmentation,planning_us,evaluations
    digits,12,<two>,2,fifo+first-fit,1,,1500,1500,1500,1000,GPUs,makespan,1500,1500,1500,1000,0.5,0,0.5,0.25,0.1,1250,7
    digits,12,<two>,2,ga,3,,1050,1000,1100,1000,GPUs,makespan,1050,1000,1100,1000,0.05,1,0.5,0.25,0.1,1250,7
    digits,12,<two>,2,auto,0,"no ""choice"", none",,,,,,makespan,,,,,,0,,,,,
    "#);
}

#[test]
fn the_gap_is_over_the_best_bound_of_all() {
    let mut example = example();
    if let Ok(trials) = &mut example.entries[1].trials {
        (trials[0].lower_bound, trials[0].value_bound) = (Millis(1_050), 1_050);
    }
    let rows = example.rows();
    assert_eq!((rows[0].lower_bound_ms, rows[0].gap), (Some(1_050), Some(450.0 / 1_050.0)));
}

#[test]
fn another_objective_has_a_column_of_its_own_and_its_own_gap() {
    let mut example = example();
    example.objective = Objective::Energy;
    for trial in example.entries.iter_mut().filter_map(|entry| entry.trials.as_mut().ok()).flatten() {
        // What ends early takes much.
        (trial.value, trial.value_bound) = (u128::from(4_000_000_000 / trial.makespan.0), 2_000_000);
    }
    insta::assert_snapshot!(example.text(Colour::Never, None), @r#"
    digits on <two>: 12 tasks, 2 GPUs; by energy; no plan is under 2000 J
    policy          energy  spread     gap  makespan  memory   share  fragments  planning  schedules
    fifo+first-fit  2667 J          33.4 %     1.50s  50.0 %  25.0 %     10.0 %     1.2ms          7
    ga              3810 J   9.5 %  90.5 %     1.05s  50.0 %  25.0 %     10.0 %     1.2ms          7
    auto                                                                                              no "choice", none
    "#);
    assert!(page(&[example]).contains("<th>energy</th><th>makespan</th>"));
}

/// One policy carried out twice, another once and in vain.
fn carried_out() -> Comparison {
    let mut example = example();
    let done = |ms| Done { makespan: Millis(ms), usage: Usage::default(), held: Some(0.25), busy: Some(0.5) };
    let run = |done| Live { seed: 1, planned: Some(Millis(1_000)), done };
    example.entries[0].live = Some(vec![run(Err("`<a>` failed: exit code 3".into()))]);
    example.entries[1].live = Some(vec![run(Ok(done(1_100))), run(Ok(done(1_200)))]);
    example.entries.truncate(2);
    example
}

#[test]
fn what_was_carried_out_has_a_table_of_its_own() {
    let example = carried_out();
    let text = example.text(Colour::Never, None);
    let (_, live) = text.split_once("carried out").unwrap();
    insta::assert_snapshot!(live, @"
     on this machine
    policy          planned  measured  spread  over plan    held    busy    runs
    fifo+first-fit       1s                                               0 of 1  `<a>` failed: exit code 3
    ga                   1s     1.15s   8.7 %    +15.0 %  25.0 %  50.0 %       2
    ");
    let page = page(&[example]);
    assert!(
        page.contains("<h3>carried out on this machine</h3>")
            && page.contains("&#96;&lt;a&gt;&#96; failed: exit code 3")
    );
}

#[test]
fn what_was_carried_out_has_columns_of_its_own() {
    let csv = csv(&[carried_out()]);
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let of = |name: &str| lines[0].iter().position(|field| *field == name).map(|at| (lines[1][at], lines[2][at]));
    assert_eq!(of("live_runs"), Some(("1", "2")));
    assert_eq!(of("live_measured_ms"), Some(("", "1150")));
    assert_eq!(of("live_error"), Some(("`<a>` failed: exit code 3", "")));
}

#[test]
fn a_page_escapes_names_and_needs_nothing_from_elsewhere() {
    let page = page(&[example()]);
    assert!(page.contains("digits on &lt;two&gt;"));
    assert!(page.contains("no &quot;choice&quot;, none"));
    assert!(!page.contains("<two>") && !page.contains("http") && !page.contains("<script"));
}

#[test]
fn the_median_of_an_even_number_lies_between_the_middle_ones() {
    assert_eq!(median(vec![40, 10, 30, 20]), Some(25));
    assert_eq!(median(vec![9, 1, 5]), Some(5));
    assert_eq!(median_part([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
    assert_eq!(median(Vec::new()), None);
}
