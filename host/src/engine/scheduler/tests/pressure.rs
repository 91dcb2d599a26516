//! Adapters that are fetched ahead of need, and what gives way when memory runs out.

use std::sync::atomic::Ordering;

use super::*;

/// A long answer of the base alone: one page now, one more each 16 tokens.
const LONG: (usize, u32) = (5, 200);

fn is_resident(image: &Arc<AdapterImage>) -> bool {
    image.resident.load(Ordering::Relaxed)
}

fn slow(scheduler: Scheduler, delay: usize) -> Drive {
    Drive { delays: vec![delay], ..Drive::behind(scheduler) }
}

/// Runs one request with that adapter to its end.
fn use_once(drive: &mut Drive, image: &Arc<AdapterImage>) {
    let mut stream = drive.submit((5, 1), Some(image.clone()));
    for _ in 0..50 {
        drive.step();
        if received(&mut stream).1 {
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn adapters_of_the_queue_are_fetched_in_its_order_and_few_at_once() {
    let mut drive = slow(Scheduler::new(SLABS, 1, 64), 4);
    let base = drive.submit(LONG, None);
    let adapters: Vec<_> = (1..5).map(|i| adapter(i, 3)).collect();
    // The second asks for the first one's again.
    let order = [0, 0, 1, 2, 3];
    let streams = order.map(|i| drive.submit((5, 1), Some(adapters[i].clone())));
    drive.step();
    let ids = |range: std::ops::Range<usize>| -> Vec<_> {
        adapters[range].iter().map(|image| image.id).collect()
    };
    assert_eq!(drive.begun, ids(0..2));
    (0..20).for_each(|_| drop(drive.step()));
    assert_eq!((&drive.begun, drive.loads.len()), (&ids(0..4), 0));
    assert_eq!(drive.scheduler.prefetches, 4);
    drop(base);
    // Each has a step of its own, and one until it is committed.
    let rows = rows(&mut drive, 10);
    assert_eq!(rows.iter().filter(|rows| **rows == [5]).count(), 5, "nobody waits for a copy");
    drive.step();
    assert!(streams.into_iter().all(|mut stream| received(&mut stream).1));
}

#[test]
fn what_is_worth_more_stays_for_a_prefetch_and_goes_for_a_sequence() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 1, 64));
    let [often, late] = [(1, 8), (2, 15)].map(|(id, slabs)| adapter(id, slabs));
    (0..2).for_each(|_| use_once(&mut drive, &often));
    let base = drive.submit(LONG, None);
    drive.step();
    let first = drive.submit((5, 1), Some(late.clone()));
    (0..3).for_each(|_| drop(drive.step()));
    assert_eq!((is_resident(&often), is_resident(&late)), (true, false), "two uses against one");
    let second = drive.submit((5, 1), Some(late.clone()));
    (0..3).for_each(|_| drop(drive.step()));
    assert_eq!((is_resident(&often), is_resident(&late)), (false, true), "two against two");
    drop((base, second));
    drive.step();
    let third = drive.submit((150, 1), Some(often.clone()));
    (0..5).for_each(|_| drop(drive.step()));
    assert!([first, third].into_iter().all(|mut stream| received(&mut stream).1));
    assert!(is_resident(&often), "who is next takes what it needs");
}

#[test]
fn an_adapter_that_another_waits_for_goes_after_all_others() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 3, 64));
    let [often, once] = [(1, 8), (2, 8)].map(|(id, slabs)| adapter(id, slabs));
    use_once(&mut drive, &once);
    (0..3).for_each(|_| use_once(&mut drive, &often));
    let _base = drive.submit(LONG, None);
    drive.step();
    // Fifteen pages beside the one that the base keeps: one too many.
    let _waits = drive.submit((230, 5), Some(once.clone()));
    let _fits = drive.submit((5, 1), Some(adapter(3, 8)));
    drive.step();
    assert_eq!(drive.scheduler.waiting.len(), 1);
    assert!(is_resident(&once) && !is_resident(&often), "the queue weighs more than the past");
}

#[test]
fn prefetching_leaves_every_running_sequence_a_page() {
    let mut drive = Drive::new(Scheduler::new(10, 3, 64));
    let _streams = [LONG; 3].map(|(prompt, _)| drive.submit((prompt, 20), None));
    let _late = drive.submit((5, 1), Some(adapter(1, 5)));
    drive.step();
    assert_eq!(drive.begun, [], "seven are free, and three of them are spoken for");
    let _fits = drive.submit((5, 1), Some(adapter(2, 4)));
    drive.step();
    assert_eq!(drive.begun, [], "the first in the queue comes first");
}

#[test]
fn growth_takes_what_was_fetched_ahead_before_anybody_is_preempted() {
    let mut drive = slow(Scheduler::new(8, 1, 64), 60);
    let mut base = drive.submit((5, 100), None);
    drive.step();
    let late = adapter(1, 6);
    let _waits = drive.submit((5, 1), Some(late.clone()));
    drive.step();
    assert_eq!(drive.begun, [late.id]);
    let mut produced = 0;
    while produced < 100 {
        drive.step();
        produced += received(&mut base).0;
        if produced < 27 {
            assert!(is_resident(&late), "one page is left after {produced} tokens");
        }
    }
    assert_eq!(drive.scheduler.preemptions, 0);
    assert_eq!(drive.begun, [late.id], "and it is not fetched again while there is no room");
}

#[test]
fn a_sequence_that_waits_for_its_copy_gives_way_to_older_ones() {
    let mut drive = slow(Scheduler::new(6, 2, 64), 60);
    let mut base = drive.submit((5, 60), None);
    drive.step();
    let late = adapter(1, 3);
    let mut waits = drive.submit((5, 1), Some(late.clone()));
    (0..38).for_each(|_| drop(drive.step()));
    assert_eq!(drive.scheduler.preemptions, 1, "its page went, its adapter was being written");
    assert!(is_resident(&late));
    while !drive.scheduler.is_idle() {
        drive.step();
    }
    assert!(received(&mut base).1 && received(&mut waits).1);
}

#[test]
fn a_large_adapter_is_served_among_a_stream_of_small_requests() {
    for delay in [0, 1, 5, 30] {
        let mut drive = slow(Scheduler::new(SLABS, 4, 64), delay);
        let small = adapter(1, 2);
        let mut streams = Vec::new();
        let mut large = None;
        let mut finished = None;
        for now in 0..400 {
            while drive.scheduler.waiting.len() < 6 {
                let image = (streams.len() % 2 == 0).then(|| small.clone());
                streams.push(drive.submit((5, 8), image));
            }
            if now == 20 {
                large = Some(drive.submit((20, 3), Some(adapter(2, 18))));
            }
            drive.step();
            if large.as_mut().is_some_and(|stream| received(stream).1) {
                finished = Some(now);
                break;
            }
        }
        assert!(finished.is_some_and(|now| now < 150 + 2 * delay), "{finished:?}, delay {delay}");
    }
}
