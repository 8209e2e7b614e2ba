//! Facts about devices whose driver hides processes.

use super::*;

/// A reading of a device of 24 GiB: what is used, and which of our tasks have a GPU open.
fn hidden(at: u64, used: u64, opened: &[(u32, bool)]) -> Readings {
    let live = Seen { free: gib(24 - used), used: gib(used), held: None, nobodys: gib(used), ..Seen::default() };
    let opened: Vec<_> = opened.iter().map(|(task, open)| (TaskId(*task), *open)).collect();
    readings(at, vec![Live::Seen(live)]).with_opened(&opened)
}

/// A device of 24 GiB on which `used` GiB are in use, and 12 promised to task 0.
fn one_promised(used: u64) -> Ledger {
    let mut ledger = Ledger::new(&fleet(&[24], &[]));
    assert!(admit(&mut ledger, 0, &shared(12), &hidden(10, used, &[])).is_ok());
    ledger
}

/// Reads one after another, and asks for so many GiB then.
fn asked_after(ledger: &mut Ledger, seen: &[Readings], gib: u64) -> Result<Vec<u32>, Why> {
    for readings in seen {
        ledger.has_room(&shared(1), readings, readings.at);
    }
    let asked = admit(ledger, 1, &shared(gib), seen.last().expect("one at least"));
    asked.map_err(|refusal| refusal.devices[0].1.clone())
}

#[test]
fn what_grows_before_a_task_has_a_gpu_open_is_a_stranger_s() {
    let mut ledger = one_promised(0);
    let why = asked_after(&mut ledger, &[hidden(20, 10, &[(0, false)])], 10).unwrap_err();
    assert_eq!(why, Why::Memory { free: gib(14), promised: gib(12), headroom: gib(1) });
    // And stays one's when it has begun.
    let why = asked_after(&mut ledger, &[hidden(4_000, 15, &[(0, true)])], 1).unwrap_err();
    assert_eq!(why, Why::Memory { free: gib(9), promised: gib(12), headroom: gib(1) });
}

#[test]
fn what_a_task_has_taken_is_not_counted_twice_where_no_stranger_was_seen() {
    assert!(asked_after(&mut one_promised(0), &[hidden(20, 12, &[(0, true)])], 11).is_ok());
    let mut twice = Ledger::new(&fleet(&[24], &[]));
    for task in [0, 1] {
        assert!(admit(&mut twice, task, &shared(7), &hidden(10, 0, &[])).is_ok());
    }
    let half = hidden(20, 7, &[(0, true), (1, false)]);
    assert!(admit(&mut twice, 2, &shared(9), &half).is_ok(), "17 GiB free, 7 of them promised");
}

#[test]
fn beside_strangers_what_grows_proves_nothing() {
    let why = asked_after(&mut one_promised(2), &[hidden(20, 14, &[(0, true)])], 8).unwrap_err();
    assert_eq!(why, Why::Memory { free: gib(10), promised: gib(12), headroom: gib(1) });
}

#[test]
fn what_is_more_than_was_promised_is_somebody_else_s() {
    let mut ledger = one_promised(0);
    let seen = [hidden(20, 15, &[(0, true)]), hidden(4_000, 15, &[(0, true)])];
    assert!(asked_after(&mut ledger, &seen, 1).is_err());
    assert_eq!(ledger.is_crowded(DeviceId(0)), Some(true));
}

#[test]
fn who_has_no_gpu_open_leaves_when_what_was_promised_to_him_is_gone() {
    for (open, leaves) in [(&[(0, false)][..], &[0_u32][..]), (&[(0, true)], &[]), (&[], &[])] {
        let mut ledger = one_promised(0);
        assert_eq!(displaced(&mut ledger, &hidden(20, 16, open)), [0_u32; 0]);
        assert_eq!(displaced(&mut ledger, &hidden(30, 16, open)), leaves, "{open:?}");
    }
    // It has taken all of its promise: nothing is missing.
    let mut ledger = one_promised(0);
    for at in [20, 30] {
        assert_eq!(displaced(&mut ledger, &hidden(at, 23, &[(0, true)])), [0_u32; 0]);
    }
}

#[test]
fn who_has_a_hidden_device_to_himself_may_fill_it() {
    let mut ledger = Ledger::new(&fleet(&[24], &[]));
    assert!(admit(&mut ledger, 0, &whole(1), &hidden(10, 0, &[])).is_ok());
    for at in [20, 30] {
        assert_eq!(displaced(&mut ledger, &hidden(at, 20, &[(0, true)])), [0_u32; 0]);
        assert_eq!(ledger.is_crowded(DeviceId(0)), Some(false));
    }
}
