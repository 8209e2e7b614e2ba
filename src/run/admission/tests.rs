//! Facts about the rule.

use proptest::prelude::*;

use super::*;
use crate::fleet::{Device, Node, Spot};
use crate::units::Share;

mod alone;
mod hidden;
mod world;

const GIB: u64 = 1 << 30;

fn gib(n: u64) -> Bytes {
    Bytes(n * GIB)
}

/// One node with 8 CPUs and devices of these sizes in GiB, a GiB of headroom each.
fn fleet(sizes: &[u64], groups: &[Option<u32>]) -> Fleet {
    let node = Node { name: "box".into(), cpus: Cpus(8_000), memory: gib(64), ..Node::default() };
    let devices = sizes.iter().enumerate().map(|(index, size)| Device {
        id: format!("box/gpu{index}"),
        memory: gib(*size),
        headroom: gib(1),
        spot: Spot { nvlink: groups.get(index).copied().flatten(), ..Spot::default() },
        ..Device::default()
    });
    Fleet { nodes: vec![node], devices: devices.collect(), ..Fleet::default() }
}

fn shared(memory: u64) -> Resources {
    Resources { gpus: Gpus::Shared, gpu_memory: gib(memory), ..Resources::default() }
}

fn whole(count: u32) -> Resources {
    Resources { gpus: Gpus::Whole(count), ..Resources::default() }
}

/// A reading of one device: what is free, and what our tasks hold.
fn seen(free: u64, used: u64, held: &[(u32, u64)]) -> Live {
    let held: Vec<_> = held.iter().map(|(task, bytes)| (TaskId(*task), gib(*bytes))).collect();
    Live::Seen(Seen { free: gib(free), used: gib(used), held: Some(held), ..Seen::default() })
}

/// The same, some of it held by a desktop.
fn drawn(free: u64, used: u64, by_desktop: u64) -> Live {
    let Live::Seen(seen) = seen(free, used, &[]) else { unreachable!("it is read") };
    Live::Seen(Seen { drawn: gib(by_desktop), ..seen })
}

fn readings(at: u64, devices: Vec<Live>) -> Readings {
    Readings { at: Millis(at), devices, ..Readings::default() }
}

fn admit(ledger: &mut Ledger, task: u32, request: &Resources, readings: &Readings) -> Result<Vec<u32>, Refusal> {
    let grant = ledger.try_admit(TaskId(task), request, None, readings, readings.at)?;
    Ok(grant.devices.into_iter().map(|device| device.0).collect())
}

#[test]
fn who_asks_for_a_share_alone_gets_as_large_a_part_of_the_memory() {
    let mut ledger = Ledger::new(&fleet(&[17, 17], &[]));
    let half = Resources { gpus: Gpus::Share(Share(500_000)), ..Resources::default() };
    let now = readings(0, vec![seen(7, 10, &[]), seen(17, 0, &[])]);
    assert_eq!(admit(&mut ledger, 0, &half, &now).unwrap(), [1]);
    assert_eq!(ledger.grant(TaskId(0)).unwrap().gpu_memory, gib(8));
    assert_eq!(admit(&mut ledger, 1, &half, &now).unwrap(), [1]);
    assert!(admit(&mut ledger, 2, &half, &now).is_err(), "6 GiB are left of gpu0, and half of it are 8");
}

#[test]
fn promised_memory_counts_before_it_is_taken() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let now = readings(10, vec![seen(80, 0, &[])]);
    assert!(admit(&mut ledger, 0, &shared(50), &now).is_ok());
    let why = admit(&mut ledger, 1, &shared(30), &now).unwrap_err();
    let numbers = Why::Memory { free: gib(80), promised: gib(50), headroom: gib(1) };
    assert_eq!(why.devices, [(DeviceId(0), numbers)]);
    assert!(admit(&mut ledger, 1, &shared(29), &now).is_ok());
}

#[test]
fn memory_that_a_task_has_taken_is_not_counted_twice() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    assert!(admit(&mut ledger, 0, &shared(50), &readings(10, vec![seen(80, 0, &[])])).is_ok());
    let ramped = readings(20, vec![seen(30, 50, &[(0, 50)])]);
    assert!(admit(&mut ledger, 1, &shared(29), &ramped).is_ok());
}

#[test]
fn memory_that_others_hold_is_respected() {
    let mut ledger = Ledger::new(&fleet(&[80, 80], &[]));
    let strangers = readings(10, vec![seen(59, 21, &[]), seen(80, 0, &[])]);
    assert_eq!(admit(&mut ledger, 0, &shared(60), &strangers), Ok(vec![1]));
    assert!(admit(&mut ledger, 1, &shared(60), &strangers).is_err());
}

#[test]
fn a_whole_device_is_not_shared_with_strangers() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let why = admit(&mut ledger, 0, &whole(1), &readings(10, vec![seen(59, 21, &[])])).unwrap_err();
    assert_eq!(why.devices, [(DeviceId(0), Why::Strangers { hold: gib(21) })]);
    assert!(admit(&mut ledger, 0, &whole(1), &readings(10, vec![seen(80, 0, &[])])).is_ok());
    let mut probed = fleet(&[80], &[]);
    probed.devices[0].free = Some(gib(59));
    let why = admit(&mut Ledger::new(&probed), 0, &whole(1), &Readings::unwatched(1)).unwrap_err();
    assert_eq!(why.devices, [(DeviceId(0), Why::Strangers { hold: gib(21) })]);
}

#[test]
fn what_ended_after_the_reading_still_counts() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let before = readings(10, vec![seen(80, 0, &[])]);
    assert!(admit(&mut ledger, 0, &shared(50), &before).is_ok());
    ledger.release(TaskId(0), Millis(20));
    let mut ask = |need: &Resources, readings: &Readings, now| {
        let asked = ledger.try_admit(TaskId(1), need, None, readings, Millis(now));
        ledger.release(TaskId(1), Millis(0));
        asked.map_err(|refusal| refusal.devices[0].1.clone())
    };
    let counted = Why::Memory { free: gib(80), promised: gib(50), headroom: gib(1) };
    assert_eq!(ask(&shared(30), &before, 21), Err(counted));
    assert_eq!(ask(&whole(1), &before, 21), Err(Why::Settling));
    assert!(ask(&shared(29), &before, 21).is_ok());
    let late = readings(30, vec![seen(30, 50, &[])]);
    assert!(matches!(ask(&shared(60), &late, 31), Err(Why::Memory { .. })));
    assert_eq!(ask(&whole(1), &late, 31), Err(Why::Strangers { hold: gib(50) }));
    // Of what is in nobody's name as much may be its own.
    let nobodys = Seen { free: gib(30), used: gib(50), held: Some(Vec::new()), nobodys: gib(50), ..Seen::default() };
    let late = |at| readings(at, vec![Live::Seen(nobodys.clone())]);
    assert_eq!(ask(&whole(1), &late(5_000), 5_001), Err(Why::Leaving { hold: gib(50) }));
    assert_eq!(ask(&whole(1), &late(90_000), 90_001), Err(Why::Strangers { hold: gib(50) }), "it never was");
    let settled = readings(90_040, vec![seen(80, 0, &[])]);
    assert!(ask(&whole(1), &settled, 90_041).is_ok());
}

#[test]
fn what_nobody_holds_was_not_left_by_who_came_later_or_held_less() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    assert!(admit(&mut ledger, 0, &whole(1), &readings(10, vec![seen(80, 0, &[])])).is_ok());
    let with_nobodys = |at, used: u64, held| {
        let Live::Seen(seen) = seen(80 - used, used, held) else { unreachable!("it is read") };
        readings(at, vec![Live::Seen(Seen { nobodys: gib(10), ..seen })])
    };
    assert!(!ledger.has_room(&whole(1), &with_nobodys(20, 13, &[(0, 3)]), Millis(21)));
    ledger.release(TaskId(0), Millis(30));
    let refusal = admit(&mut ledger, 1, &whole(1), &with_nobodys(40, 10, &[])).unwrap_err();
    assert_eq!(refusal.devices[0].1, Why::Strangers { hold: gib(10) });
}

#[test]
fn who_had_all_of_a_device_may_still_hold_that_until_it_is_read_again() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let before = readings(10, vec![seen(80, 0, &[])]);
    assert!(admit(&mut ledger, 0, &whole(1), &before).is_ok());
    ledger.release(TaskId(0), Millis(20));
    let why = ledger.try_admit(TaskId(1), &shared(30), None, &before, Millis(21)).unwrap_err();
    let lacks = Why::Memory { free: gib(80), promised: gib(78), headroom: gib(1) };
    assert_eq!(why.devices, [(DeviceId(0), lacks)]);
    let settled = readings(30, vec![seen(80, 0, &[])]);
    assert!(ledger.try_admit(TaskId(1), &shared(30), None, &settled, Millis(31)).is_ok());
}

#[test]
fn what_an_earlier_attempt_held_is_not_the_next_one_s() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    assert!(admit(&mut ledger, 0, &shared(30), &readings(10, vec![seen(80, 0, &[])])).is_ok());
    let ramped = readings(20, vec![seen(50, 30, &[(0, 30)])]);
    ledger.release(TaskId(0), Millis(21));
    assert!(ledger.try_admit(TaskId(0), &shared(30), None, &ramped, Millis(22)).is_ok());
    let why = ledger.try_admit(TaskId(1), &shared(20), None, &ramped, Millis(23)).unwrap_err();
    assert_eq!(why.devices[0].1, Why::Memory { free: gib(50), promised: gib(30), headroom: gib(1) });
}

#[test]
fn an_old_reading_or_a_lost_device_admits_nothing() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let old = readings(10, vec![seen(80, 0, &[])]);
    let refusal = ledger.try_admit(TaskId(0), &shared(1), None, &old, Millis(10_000)).unwrap_err();
    assert_eq!(refusal.devices[0].1, Why::Stale { age: Millis(9_990) });
    let words = refusal.explain(&fleet(&[80], &[]));
    assert!(words.contains("ago: its driver does not answer; where that lasts, `nvidia-smi --gpu-reset`"), "{words}");
    // One that the driver took long for counts once it has come, but not for ever.
    let took = |took| Readings { took: Millis(took), ..old.clone() };
    for (took, now, admits) in
        [(took(7_000), 12_010, true), (took(7_000), 12_011, false), (took(90_000), 90_010, false)]
    {
        assert_eq!(ledger.clone().try_admit(TaskId(0), &shared(1), None, &took, Millis(now)).is_ok(), admits, "{now}");
    }
    let lost = readings(10, vec![Live::Fault { fault: "lost".into(), ends_tasks: true, until: "" }]);
    assert!(admit(&mut ledger, 0, &shared(1), &lost).is_err());
    assert!(admit(&mut ledger, 0, &Resources::default(), &lost).is_ok());
}

#[test]
fn without_readings_capacity_less_reservations_counts() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let none = Readings::unwatched(1);
    assert!(admit(&mut ledger, 0, &shared(50), &none).is_ok());
    let why = admit(&mut ledger, 1, &shared(30), &none).unwrap_err();
    assert_eq!(why.devices[0].1, Why::Capacity { all: gib(79), reserved: gib(50) });
    ledger.release(TaskId(0), Millis(5));
    assert!(admit(&mut ledger, 1, &shared(79), &none).is_ok());
}

#[test]
fn a_request_goes_where_it_leaves_least() {
    let mut ledger = Ledger::new(&fleet(&[80, 24, 48], &[]));
    let none = Readings::unwatched(3);
    assert_eq!(admit(&mut ledger, 0, &shared(40), &none), Ok(vec![2]));
    assert_eq!(admit(&mut ledger, 1, &shared(20), &none), Ok(vec![1]));
    assert_eq!(admit(&mut ledger, 2, &shared(20), &none), Ok(vec![0]));
}

#[test]
fn intended_devices_come_first() {
    let mut ledger = Ledger::new(&fleet(&[80, 80], &[]));
    let wish = [DeviceId(1)];
    let intended = Some((NodeId(0), &wish[..]));
    let none = Readings::unwatched(2);
    let grant = ledger.try_admit(TaskId(0), &shared(60), intended, &none, Millis(0)).unwrap();
    assert_eq!(grant.devices, wish);
    let moved = ledger.try_admit(TaskId(1), &shared(60), intended, &none, Millis(0)).unwrap();
    assert_eq!(moved.devices, [DeviceId(0)]);
}

#[test]
fn a_gang_stays_within_the_smallest_group_that_holds_it() {
    let groups = [Some(0), Some(0), Some(0), None, Some(1), Some(1)];
    let mut ledger = Ledger::new(&fleet(&[80; 6], &groups));
    let none = Readings::unwatched(6);
    assert_eq!(admit(&mut ledger, 0, &whole(2), &none), Ok(vec![4, 5]));
    assert_eq!(admit(&mut ledger, 1, &whole(3), &none), Ok(vec![0, 1, 2]));
    assert_eq!(admit(&mut ledger, 2, &whole(2), &none).unwrap_err().devices.len(), 5);
}

#[test]
fn shares_of_a_device_add_up_to_one() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let third = Resources { gpus: Gpus::Share(Share(333_333)), ..Resources::default() };
    let none = Readings::unwatched(1);
    for task in 0..3 {
        assert!(admit(&mut ledger, task, &third, &none).is_ok());
    }
    assert!(matches!(admit(&mut ledger, 3, &third, &none).unwrap_err().devices[0].1, Why::Share { .. }));
}

#[test]
fn what_can_never_fit_is_known_before_anything_starts() {
    let mut fleet = fleet(&[24, 80], &[]);
    fleet.devices[1].free = Some(gib(10));
    let ledger = Ledger::new(&fleet);
    assert_eq!(ledger.possible(&shared(79)), Ok(()));
    let refusal = ledger.possible(&shared(80)).unwrap_err();
    assert!(refusal.never);
    assert_eq!(
        refusal.explain(&fleet),
        "needs 80.0 GiB of one GPU; gpu0 gives 23.0 GiB at most; gpu1 gives 79.0 GiB at most"
    );
    assert!(ledger.possible(&whole(3)).is_err());
    assert!(ledger.possible(&Resources { cpus: Cpus(9_000), ..Resources::default() }).is_err());
}

#[test]
fn a_refusal_says_its_numbers() {
    let fleet = fleet(&[80], &[]);
    let mut ledger = Ledger::new(&fleet);
    let now = readings(10, vec![seen(18, 62, &[])]);
    assert!(admit(&mut ledger, 0, &shared(4), &now).is_ok());
    let refusal = admit(&mut ledger, 1, &shared(21), &now).unwrap_err();
    let words = "needs 21.0 GiB of one GPU; gpu0 free 18.0 GiB, promised 4.0 GiB, headroom 1.0 GiB";
    assert_eq!(refusal.explain(&fleet), words);
}

proptest! {
    #[test]
    fn releasing_everything_leaves_the_ledger_as_it_was(needs in prop::collection::vec((0..4_u32, 1..50_u64), 1..30)) {
        let mut ledger = Ledger::new(&fleet(&[80, 24, 48], &[Some(0), Some(0), None]));
        let none = Readings::unwatched(3);
        for (task, (kind, size)) in (0..).zip(&needs) {
            let request = match kind {
                0 => shared(*size),
                1 => whole((*size % 3 + 1) as u32),
                2 => Resources { gpus: Gpus::Share(Share(*size as u32 * 10_000)), ..Resources::default() },
                _ => Resources { cpus: Cpus(*size * 100), memory: gib(*size), ..Resources::default() },
            };
            let _ = admit(&mut ledger, task, &request, &none);
            prop_assert!((0..3).all(|device| ledger.reserved(DeviceId(device)) <= gib(79)));
        }
        for task in 0..needs.len() {
            ledger.release(TaskId(task as u32), Millis(1));
        }
        let all = Resources { cpus: Cpus(8_000), memory: gib(64), ..whole(3) };
        prop_assert!(admit(&mut ledger, 99, &all, &none).is_ok());
    }
}

/// Admits tasks of these sizes at 10 ms apart on one card of 80 GiB that is free.
fn promised(sizes: &[u64]) -> Ledger {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    for (task, size) in (0..).zip(sizes) {
        let now = u64::from(task) * 10 + 1;
        assert!(admit(&mut ledger, task, &shared(*size), &readings(now, vec![seen(80, 0, &[])])).is_ok());
    }
    ledger
}

fn displaced(ledger: &mut Ledger, readings: &Readings) -> Vec<u32> {
    let started = |task: TaskId, _| Millis(u64::from(task.0) * 10 + 1);
    ledger.displaced(readings, started, |_| false).into_iter().map(|(task, ..)| task.0).collect()
}

#[test]
fn who_has_taken_nothing_leaves_when_others_take_what_was_promised() {
    let mut ledger = promised(&[20, 20, 20]);
    // The first has begun; others hold 40 GiB, so 20 are left for 50 that are promised.
    let crowded = |at| readings(at, vec![seen(20, 60, &[(0, 10)])]);
    assert_eq!(displaced(&mut ledger, &crowded(100)), [0_u32; 0], "a moment's peak moves nobody");
    assert!(ledger.is_short());
    assert_eq!(displaced(&mut ledger, &crowded(100)), [0_u32; 0], "the same reading says nothing new");
    assert_eq!(displaced(&mut ledger, &crowded(200)), [1, 2]);
    assert_eq!(ledger.shortage(DeviceId(0)), Some((gib(50), gib(20))));
    // Others leave again: nobody has to.
    assert_eq!(displaced(&mut ledger, &readings(300, vec![seen(70, 10, &[(0, 10)])])), [0_u32; 0]);
    assert!(!ledger.is_short());
}

#[test]
fn no_more_leave_than_must_and_the_youngest_first() {
    let mut ledger = promised(&[20, 20, 20]);
    for at in [100, 200] {
        let left = displaced(&mut ledger, &readings(at, vec![seen(45, 35, &[])]));
        assert_eq!(left, if at == 100 { vec![] } else { vec![2] });
    }
}

#[test]
fn who_is_not_let_in_any_more_leaves() {
    let mut ledger = promised(&[20]);
    let exclusive = |at, computing, held: &[(u32, u64)]| {
        let Live::Seen(seen) = seen(79, 1, held) else { unreachable!("it is seen") };
        readings(at, vec![Live::Seen(Seen { one_process: Some(computing), ..seen })])
    };
    for at in [100, 200] {
        assert_eq!(displaced(&mut ledger, &exclusive(at, 1, &[(0, 0)])), [0_u32; 0], "it is in itself");
    }
    assert_eq!(displaced(&mut ledger, &exclusive(300, 1, &[])), [0_u32; 0], "a moment's visit moves nobody");
    assert!(ledger.is_short());
    assert_eq!(displaced(&mut ledger, &exclusive(400, 0, &[])), [0_u32; 0]);
    assert!(!ledger.is_short());
    for at in [500, 600] {
        assert_eq!(displaced(&mut ledger, &exclusive(at, 1, &[])), if at == 500 { vec![] } else { vec![0] });
    }
}

#[test]
fn everything_leaves_a_device_that_fell_out_and_nothing_one_that_is_drained() {
    let mut ledger = promised(&[20, 20]);
    let fault = |ends_tasks| readings(100, vec![Live::Fault { fault: "lost".into(), ends_tasks, until: "" }]);
    assert_eq!(displaced(&mut ledger, &fault(false)), [0_u32; 0]);
    assert_eq!(displaced(&mut ledger, &fault(true)), [0, 1]);
}

#[test]
fn what_others_gave_back_a_moment_ago_is_not_given_out() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let crowded = readings(10, vec![seen(40, 40, &[])]);
    assert!(admit(&mut ledger, 0, &shared(60), &crowded).is_err());
    let empty = |at| readings(at, vec![seen(80, 0, &[])]);
    let why = admit(&mut ledger, 0, &shared(60), &empty(20)).unwrap_err();
    assert_eq!(why.devices, [(DeviceId(0), Why::Lately { hold: gib(40) })]);
    assert!(admit(&mut ledger, 1, &shared(39), &empty(30)).is_ok(), "the rest of it is");
    assert!(admit(&mut ledger, 0, &shared(40), &empty(3_011)).is_ok());
}

proptest! {
    #[test]
    fn what_stays_after_a_shortage_can_be_kept_or_has_begun(
        sizes in prop::collection::vec(1..20_u64, 1..8), begun in prop::collection::vec(0..20_u64, 8), free in 0..80_u64,
    ) {
        let total: u64 = sizes.iter().sum();
        prop_assume!(total < 79);
        let mut ledger = promised(&sizes);
        let held: Vec<(u32, u64)> = (0..).zip(sizes.iter().zip(&begun)).map(|(task, (size, begun))| (task, *begun.min(size))).collect();
        let held: Vec<_> = held.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        let reading = |at| readings(at, vec![seen(free, 80 - free, &held)]);
        displaced(&mut ledger, &reading(1_000));
        let left = displaced(&mut ledger, &reading(1_100));
        let of = |task: u32| held.iter().find(|(other, _)| *other == task).map_or(0, |(_, bytes)| *bytes);
        let stays = |task: &u32| !left.contains(task);
        let outstanding: u64 =
            (0..).zip(&sizes).filter(|(task, _)| stays(task)).map(|(task, size)| size - of(task)).sum();
        let all_have_begun = (0..sizes.len() as u32).filter(stays).all(|task| of(task) > 0);
        prop_assert!(outstanding <= free || all_have_begun);
        prop_assert!(left.iter().all(|task| of(*task) == 0));
    }
}

#[test]
fn what_a_driver_may_keep_without_a_word_is_named_with_what_is_left_beside_it() {
    let fleet = fleet(&[24, 24], &[]);
    let words = |nobodys: u64, held: u64, asked: u64| {
        let mib = |n: u64| Bytes(n << 20);
        let used = mib(nobodys + held);
        let live =
            Seen { free: gib(24) - used, used, held: Some(Vec::new()), nobodys: mib(nobodys), ..Seen::default() };
        let request = Resources { gpu_memory: mib(asked), ..shared(1) };
        let now = readings(0, vec![Live::Seen(live.clone()), Live::Seen(live)]);
        admit(&mut Ledger::new(&fleet), 0, &request, &now).unwrap_err().explain(&fleet)
    };
    let own =
        "no process is seen to hold what it lacks of gpu0: where that is the driver's own, it gets at most 22952 MiB";
    assert!(words(600, 0, 23_400).contains(own), "{}", words(600, 0, 23_400));
    assert!(!words(600, 600, 23_400).contains("driver's own"), "somebody holds the rest");
    assert!(!words(2_000, 0, 23_400).contains("driver's own"), "that is too much for one");
    let half = Resources { gpus: Gpus::Share(Share(500_000)), gpu_memory: Bytes::ZERO, ..shared(1) };
    let live = Seen { free: gib(10), used: gib(14), held: Some(Vec::new()), ..Seen::default() };
    let now = readings(0, vec![Live::Seen(live.clone()), Live::Seen(live)]);
    let said = admit(&mut Ledger::new(&fleet), 0, &half, &now).unwrap_err().explain(&fleet);
    assert!(said.contains("headroom 1.0 GiB (0.5 of its memory is 11.5 GiB)"), "{said}");
    assert!(!said.contains("driver's own"), "others are seen to hold it: {said}");
    let larger = Resources { alone: true, ..whole(1) };
    let larger = Resources { gpu_memory: fleet.devices[0].whole_memory() + Bytes(1), ..larger };
    let said = admit(&mut Ledger::new(&fleet), 0, &larger, &now).unwrap_err().explain(&fleet);
    assert!(said.starts_with("needs 1 whole GPU of more than 23.0 GiB; gpu0 gives 23.0 GiB at most"), "{said}");
}

#[test]
fn a_device_that_was_busy_is_kept_off_until_then_or_until_a_reading_shows_who_is_there() {
    let one_process = |at: u64, computing: usize| {
        let Live::Seen(seen) = seen(80, 0, &[]) else { unreachable!("it is read") };
        readings(at, vec![Live::Seen(Seen { one_process: Some(computing), ..seen })])
    };
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    ledger.turned_away(DeviceId(0), Millis(100));
    ledger.keep_off(DeviceId(0), Millis(30_000));
    let why = |ledger: &mut Ledger, readings| admit(ledger, 0, &shared(1), &readings).unwrap_err().devices[0].1.clone();
    // Whoever was there when it was read before has nothing to do with it.
    for (at, computing) in [(90, 1), (110, 0), (20_000, 0)] {
        let left = Millis(30_000 - at);
        assert_eq!(why(&mut ledger, one_process(at, computing)), Why::TurnedAway { left });
    }
    assert!(ledger.reach(&shared(1)).is_ok() && ledger.possible(&shared(1)).is_ok(), "it is not for ever");
    let mut later = ledger.clone();
    assert!(admit(&mut later, 0, &shared(1), &one_process(30_000, 0)).is_ok());
    assert_eq!(why(&mut ledger, one_process(21_000, 1)), Why::OneProcess);
    assert!(admit(&mut ledger, 0, &shared(1), &one_process(22_000, 0)).is_ok(), "it was seen to leave");
}

#[test]
fn a_device_that_was_busy_is_tried_again_later_each_time_and_within_half_a_minute() {
    let mut ledger = Ledger::new(&fleet(&[80], &[]));
    let mut kept = |at: u64, until: u64| {
        ledger.turned_away(DeviceId(0), Millis(at));
        ledger.keep_off(DeviceId(0), Millis(until));
        let Live::Seen(seen) = seen(80, 0, &[]) else { unreachable!("it is read") };
        let readings = readings(at, vec![Live::Seen(Seen { one_process: Some(0), ..seen })]);
        let refusal = admit(&mut ledger, 0, &shared(1), &readings).unwrap_err();
        let Why::TurnedAway { left } = refusal.devices[0].1 else { unreachable!("it is kept off") };
        left.0
    };
    let pauses: Vec<u64> = (1..=7).map(|times| kept(100_000 * times, 0)).collect();
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!(kept(900_000, 9_000_000), 30_000);
}
