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
    let desktop = |at| readings(at, vec![seen(14, 2, &[])]);
    assert_eq!(admit(&mut ledger, 0, &whole(1), &desktop(0)).unwrap(), [0]);
    assert_eq!(displaced(&mut ledger, &desktop(1)), [0; 0]);
    assert_eq!(displaced(&mut ledger, &desktop(2)), [0; 0]);
    assert!(!ledger.is_crowded(DeviceId(0)));
    let more = |at| readings(at, vec![seen(11, 5, &[])]);
    assert_eq!(displaced(&mut ledger, &more(3)), [0; 0]);
    assert_eq!(displaced(&mut ledger, &more(4)), [0]);
    assert!(ledger.is_crowded(DeviceId(0)));
    // What others hold who train is not put up with.
    let mut ledger = Ledger::new(&fleet(&[16], &[]));
    assert!(admit(&mut ledger, 0, &whole(1), &more(0)).is_err());
}

#[test]
fn where_a_device_is_empty_or_ours_no_desktop_is_put_up_with() {
    let mut ledger = Ledger::new(&fleet(&[16, 16], &[]));
    assert_eq!(admit(&mut ledger, 0, &whole(1), &readings(0, vec![seen(14, 2, &[]), seen(16, 0, &[])])).unwrap(), [1]);
    let taken = readings(1, vec![seen(14, 2, &[]), seen(4, 12, &[(0, 12)])]);
    assert!(admit(&mut ledger, 1, &whole(1), &taken).is_err(), "it waits for the other");
    let lost = Live::Fault { fault: "lost".to_owned(), until: "", ends_tasks: true };
    assert_eq!(admit(&mut ledger, 1, &whole(1), &readings(2, vec![seen(14, 2, &[]), lost])).unwrap(), [0]);
}

#[test]
fn who_has_a_whole_device_leaves_it_to_strangers_before_it_has_begun() {
    for (held, leaves) in [(&[][..], &[0][..]), (&[(0, 2)], &[])] {
        let mut ledger = Ledger::new(&fleet(&[16], &[]));
        admit(&mut ledger, 0, &whole(1), &readings(0, vec![seen(16, 0, &[])])).unwrap();
        let used = 6 + held.iter().map(|(_, gib)| gib).sum::<u64>();
        assert_eq!(displaced(&mut ledger, &readings(1, vec![seen(16 - used, used, held)])), [0; 0]);
        assert_eq!(displaced(&mut ledger, &readings(2, vec![seen(16 - used, used, held)])), leaves);
        assert!(ledger.is_crowded(DeviceId(0)));
    }
}
