//! Tasks that are to have a device to themselves, and strangers.

use super::*;

#[test]
fn who_is_to_be_alone_gets_no_device_with_strangers_and_all_of_one_without() {
    let mut ledger = Ledger::new(&fleet(&[16, 16], &[]));
    let alone = Resources { alone: true, gpu_memory: gib(4), ..whole(1) };
    let now = readings(0, vec![seen(10, 6, &[]), seen(16, 0, &[])]);
    assert_eq!(admit(&mut ledger, 0, &alone, &now).unwrap(), [1]);
    assert_eq!(ledger.grant(TaskId(0)).unwrap().gpu_memory, gib(15));
    let why = admit(&mut ledger, 1, &alone, &now).unwrap_err();
    assert_eq!(why.devices[0].1, Why::Strangers { hold: gib(6) });
}

#[test]
fn a_desktop_on_every_device_is_put_up_with_and_no_more_than_that() {
    let mut ledger = Ledger::new(&fleet(&[16], &[]));
    let desktop = |at| readings(at, vec![drawn(14, 2, 2)]);
    assert_eq!(admit(&mut ledger, 0, &whole(1), &desktop(0)).unwrap(), [0]);
    assert_eq!(displaced(&mut ledger, &desktop(1)), [0; 0]);
    assert_eq!(displaced(&mut ledger, &desktop(2)), [0; 0]);
    assert_eq!(ledger.is_crowded(DeviceId(0)), Some(false));
    let more = |at| readings(at, vec![drawn(11, 5, 5)]);
    assert_eq!(displaced(&mut ledger, &more(3)), [0; 0]);
    assert_eq!(displaced(&mut ledger, &more(4)), [0]);
    assert_eq!(ledger.is_crowded(DeviceId(0)), Some(true));
    // Neither is so much put up with, nor what others hold who train, nor what is given back late.
    let late = Seen { free: gib(14), used: gib(2), held: Some(Vec::new()), nobodys: gib(2), ..Seen::default() };
    for live in [drawn(11, 5, 5), seen(14, 2, &[]), drawn(12, 4, 2), Live::Seen(late)] {
        let mut ledger = Ledger::new(&fleet(&[16], &[]));
        assert!(admit(&mut ledger, 0, &whole(1), &readings(0, vec![live])).is_err());
    }
}

#[test]
fn where_a_device_is_empty_or_ours_no_desktop_is_put_up_with() {
    let mut ledger = Ledger::new(&fleet(&[16, 16], &[]));
    assert_eq!(admit(&mut ledger, 0, &whole(1), &readings(0, vec![drawn(14, 2, 2), seen(16, 0, &[])])).unwrap(), [1]);
    let taken = readings(1, vec![drawn(14, 2, 2), seen(4, 12, &[(0, 12)])]);
    assert!(admit(&mut ledger, 1, &whole(1), &taken).is_err(), "it waits for the other");
    let lost = Live::Fault { fault: "lost".to_owned(), until: "", ends_tasks: true };
    assert_eq!(admit(&mut ledger, 1, &whole(1), &readings(2, vec![drawn(14, 2, 2), lost])).unwrap(), [0]);
}

#[test]
fn a_device_is_not_waited_for_that_has_less_than_a_larger_one_beside_its_desktop() {
    for (sizes, begins) in [([8, 24], true), ([21, 24], true), ([22, 24], false), ([24, 24], false)] {
        let mut ledger = Ledger::new(&fleet(&sizes, &[]));
        let [first, large] = sizes;
        let idle = |at| readings(at, vec![seen(first, 0, &[]), drawn(large - 2, 2, 2)]);
        assert_eq!(admit(&mut ledger, 0, &whole(1), &idle(0)).unwrap(), [0], "who can be alone now, is");
        let busy = readings(1, vec![seen(0, first, &[(0, first)]), drawn(large - 2, 2, 2)]);
        let other = admit(&mut ledger, 1, &whole(1), &busy);
        assert_eq!(other.ok(), begins.then(|| vec![1]), "{sizes:?}");
    }
}

#[test]
fn who_has_a_whole_device_leaves_it_to_strangers_before_it_has_begun() {
    for (held, leaves) in [(&[][..], &[0][..]), (&[(0, 2)], &[])] {
        let mut ledger = Ledger::new(&fleet(&[16], &[]));
        admit(&mut ledger, 0, &whole(1), &readings(0, vec![seen(16, 0, &[])])).unwrap();
        let used = 6 + held.iter().map(|(_, gib)| gib).sum::<u64>();
        assert_eq!(displaced(&mut ledger, &readings(1, vec![seen(16 - used, used, held)])), [0; 0]);
        assert_eq!(displaced(&mut ledger, &readings(2, vec![seen(16 - used, used, held)])), leaves);
        assert_eq!(ledger.is_crowded(DeviceId(0)), Some(true));
    }
}

#[test]
fn a_number_of_who_wants_all_says_how_large_a_device_and_not_how_empty() {
    let nearly_all = Resources { alone: true, gpu_memory: gib(14), ..whole(1) };
    let desktop = readings(0, vec![drawn(13, 3, 3)]);
    let mut ledger = Ledger::new(&fleet(&[16], &[]));
    assert_eq!(admit(&mut ledger, 0, &nearly_all, &desktop).unwrap(), [0]);
    assert_eq!(ledger.grant(TaskId(0)).unwrap().gpu_memory, gib(12), "15 GiB less the desktop's");
    let larger = Resources { gpu_memory: gib(16), ..nearly_all.clone() };
    assert!(matches!(admit(&mut ledger, 1, &larger, &desktop).unwrap_err().devices[0].1, Why::TooSmall { .. }));
    // The same by what is known from before the run.
    let mut probed = fleet(&[16], &[]);
    probed.devices[0].free = Some(gib(13));
    assert!(admit(&mut Ledger::new(&probed), 0, &nearly_all, &Readings::unwatched(1)).is_ok());
    // Of a device that others train on it is no more than before.
    let crowded = readings(0, vec![drawn(11, 5, 5)]);
    assert!(admit(&mut Ledger::new(&fleet(&[16], &[])), 0, &nearly_all, &crowded).is_err());
}

#[test]
fn who_ran_out_beside_what_he_had_put_up_with_was_not_crowded_out() {
    let mut ledger = Ledger::new(&fleet(&[16], &[]));
    let desktop = |at| readings(at, vec![drawn(14, 2, 2)]);
    assert!(admit(&mut ledger, 0, &whole(1), &desktop(0)).is_ok());
    ledger.release(TaskId(0), Millis(1));
    displaced(&mut ledger, &desktop(2));
    assert_eq!(ledger.is_crowded(DeviceId(0)), Some(false));
}

#[test]
fn what_nobody_is_seen_to_hold_was_in_the_way_once_it_cannot_be_his_who_ended() {
    let nobodys = |at, gib_used| {
        let used = gib(gib_used);
        let live = Seen { free: gib(16) - used, used, held: Some(Vec::new()), nobodys: used, ..Seen::default() };
        readings(at, vec![Live::Seen(live)])
    };
    let after = |seen: &[(u64, u64)]| {
        let mut ledger = Ledger::new(&fleet(&[16], &[]));
        assert!(admit(&mut ledger, 0, &whole(1), &nobodys(0, 0)).is_ok());
        ledger.release(TaskId(0), Millis(1));
        seen.iter().for_each(|(at, used)| drop(displaced(&mut ledger, &nobodys(*at, *used))));
        ledger.is_crowded(DeviceId(0))
    };
    assert_eq!(after(&[(2, 0)]), Some(false));
    assert_eq!(after(&[(2, 10)]), None, "a driver may give back late");
    assert_eq!(after(&[(2, 10), (5_000, 0)]), Some(false));
    assert_eq!(after(&[(2, 10), (1 + SETTLED.0, 10)]), None);
    assert_eq!(after(&[(2, 10), (2 + SETTLED.0, 10)]), Some(true));
}

#[test]
fn where_processes_are_hidden_only_what_has_stayed_the_same_is_put_up_with() {
    let hidden = |at, gib_used| {
        let used = gib(gib_used);
        let live = Seen { free: gib(16) - used, used, held: None, nobodys: used, ..Seen::default() };
        readings(at, vec![Live::Seen(live)])
    };
    let after = |seen: &[(u64, u64)]| {
        let mut ledger = Ledger::new(&fleet(&[16], &[]));
        seen.iter().map(|(at, used)| admit(&mut ledger, 0, &whole(1), &hidden(*at, *used)).is_ok()).collect::<Vec<_>>()
    };
    let settled = SETTLED.0;
    assert_eq!(after(&[(0, 3), (settled - 1, 3), (settled, 3)]), [false, false, true]);
    assert_eq!(after(&[(0, 4), (settled - 1, 2), (settled, 2)]), [false; 3], "it is given back");
    assert_eq!(after(&[(0, 5), (settled, 5)]), [false; 2], "somebody trains");
}

#[test]
fn who_ran_already_when_he_was_entered_has_beside_him_what_is_seen_first() {
    let mut ledger = Ledger::new(&fleet(&[16], &[]));
    ledger.enter(TaskId(0), &whole(1), NodeId(0), vec![DeviceId(0)]);
    for at in 1..4 {
        assert_eq!(displaced(&mut ledger, &readings(at, vec![drawn(12, 4, 4)])), [0; 0]);
    }
    assert_eq!(displaced(&mut ledger, &readings(4, vec![drawn(8, 8, 4)])), [0; 0]);
    assert_eq!(displaced(&mut ledger, &readings(5, vec![drawn(8, 8, 4)])), [0]);
}

#[test]
fn beside_desktops_the_smallest_is_chosen() {
    let mut ledger = Ledger::new(&fleet(&[24, 24, 24], &[]));
    let now = readings(0, vec![drawn(19, 5, 5), drawn(22, 2, 2), drawn(21, 3, 3)]);
    assert_eq!(admit(&mut ledger, 0, &whole(1), &now).unwrap(), [1]);
    assert_eq!(admit(&mut ledger, 1, &whole(1), &now).unwrap(), [2]);
}

#[test]
fn what_a_desktop_holds_nobody_gets_who_does_not_put_up_with_it() {
    let of = |frees: &[Option<u64>]| {
        let mut fleet = fleet(&vec![16; frees.len()], &[]);
        fleet.devices.iter_mut().zip(frees).for_each(|(device, free)| device.free = free.map(gib));
        most_of_each(&fleet, Gpus::Shared)
    };
    assert_eq!(of(&[None]), gib(15));
    assert_eq!(of(&[Some(13)]), gib(12));
    assert_eq!(of(&[Some(13), Some(14)]), gib(13));
    assert_eq!(of(&[Some(13), Some(1)]), gib(15), "who trains there leaves again");
}
