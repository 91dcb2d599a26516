use proptest::{collection::vec, prelude::*};

use super::*;

fn begin(index: u32) -> Event {
    Event::ToolBegin { index, id: None, name: "f".into() }
}

fn delta(index: u32) -> Event {
    Event::ToolDelta { index, fragment: "{".into() }
}

fn text(text: &str) -> Event {
    Event::Content(text.into())
}

fn structured(json: &str) -> Event {
    Event::Structured { name: "table".into(), json: json.into(), complete: true }
}

/// The first rule that `events` break, empty if none.
fn check(events: &[Event], expect: &str) {
    let admitted = EventOrder::new(4096).admit(events.to_vec());
    let broken = admitted.err().map_or(String::new(), |fault| fault.to_string());
    assert!(
        broken.contains(expect) && broken.is_empty() == expect.is_empty(),
        "{events:?} gave {broken:?}, not {expect:?}",
    );
}

#[test]
fn rules() {
    check(&[text("a"), begin(0), delta(0), Event::ToolEnd(0), begin(1), text("b")], "");
    check(&[begin(0), begin(1), delta(0), delta(1), Event::ToolEnd(1), Event::ToolEnd(0)], "");
    check(&[delta(0)], "`tool-delta` for call 0, which is not open");
    check(&[begin(0), Event::ToolEnd(0), delta(0)], "`tool-delta` for call 0");
    check(&[begin(0), Event::ToolEnd(0), Event::ToolEnd(0)], "`tool-end` for call 0");
    check(&[begin(1)], "`tool-begin` 1 where 0 is next");
    check(&[begin(0), begin(0)], "`tool-begin` 0 where 1 is next");
    check(&[begin(0), begin(2)], "`tool-begin` 2 where 1 is next");
    check(&[Event::Stop(None), text("late")], "an event after `stop`");
    check(&[Event::Stop(None), Event::Stop(None)], "an event after `stop`");
    check(&[structured("{\"a\": [1, 2]}")], "");
    check(&[structured("{\"a\": ")], "`structured` JSON");
    check(&[structured("{} {}")], "`structured` JSON");
    check(&[Event::ToolBegin { index: 0, id: None, name: String::new() }], "a tool's name");
    check(&[Event::ToolBegin { index: 0, id: None, name: "x".repeat(257) }], "a tool's name");
    check(&[text(&"x".repeat(4081))], "more than 4096 bytes");
}

#[test]
fn open_calls_end_before_a_stop() {
    let stop = Event::Stop(Some("</s>".into()));
    let mut order = EventOrder::new(4096);
    let events = vec![begin(0), begin(1), Event::ToolEnd(0), stop.clone()];
    let admitted = order.admit(events).unwrap();
    assert_eq!(admitted[3..], [Event::ToolEnd(1), stop]);
    assert!(order.stopped());
    assert_eq!(order.close().count(), 0);
}

#[test]
fn the_bound_holds_over_the_whole_stream() {
    let mut order = EventOrder::new(100);
    for _ in 0..4 {
        order.admit(vec![text("12345678")]).unwrap();
    }
    assert_eq!(order.admit(vec![text("")]), Err(FaultKind::Output(100)));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        "[a-z]{0,4}".prop_map(Event::Content),
        "[a-z]{0,4}".prop_map(Event::Reasoning),
        (0..3_u32, "[a-z]{0,2}").prop_map(|(index, name)| Event::ToolBegin {
            index,
            id: None,
            name
        }),
        (0..3_u32).prop_map(delta),
        (0..3_u32).prop_map(Event::ToolEnd),
        prop_oneof![Just("1"), Just("[")].prop_map(structured),
        Just(Event::Stop(None)),
    ]
}

proptest! {
    /// Whatever a guest sends in whatever chunks, what passes is a valid stream.
    #[test]
    fn what_is_admitted_is_valid(chunks in vec(vec(any_event(), 0..4), 0..12)) {
        let mut order = EventOrder::new(400);
        let mut seen = Vec::new();
        let mut faulted = false;
        for chunk in chunks {
            match order.admit(chunk) {
                Ok(events) => seen.extend(events),
                Err(_) => { faulted = true; break }
            }
        }
        if !faulted {
            seen.extend(order.close());
        }
        let mut states: Vec<bool> = Vec::new();
        for (position, event) in seen.iter().enumerate() {
            match event {
                Event::ToolBegin { index, name, .. } => {
                    prop_assert_eq!(*index as usize, states.len());
                    prop_assert!(!name.is_empty());
                    states.push(true);
                }
                Event::ToolDelta { index, .. } => prop_assert!(states[*index as usize]),
                Event::ToolEnd(index) => {
                    prop_assert!(std::mem::replace(&mut states[*index as usize], false));
                }
                Event::Structured { json, .. } => {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(json).is_ok());
                }
                Event::Stop(_) => prop_assert_eq!(position + 1, seen.len()),
                _ => {}
            }
        }
        prop_assert!(faulted || states.iter().all(|open| !open), "every call ends");
        prop_assert!(seen.iter().map(text_bytes).sum::<usize>() <= 400);
    }

    /// The same events in one chunk or in many give the same answer.
    #[test]
    fn chunking_changes_nothing(events in vec(any_event(), 0..12), cut in 0..12_usize) {
        let (head, tail) = events.split_at(cut.min(events.len()));
        let whole = EventOrder::new(400).admit(events.clone());
        let mut order = EventOrder::new(400);
        let parts = order.admit(head.to_vec()).and_then(|mut admitted| {
            admitted.extend(order.admit(tail.to_vec())?);
            Ok(admitted)
        });
        prop_assert_eq!(whole, parts);
    }
}
