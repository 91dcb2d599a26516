use proptest::prelude::*;
use switchyard_kernels::{Dtype, HostBuffer, TileMap};

use super::*;

fn image(id: u8, bytes: usize) -> AdapterImage {
    let map = Arc::new(TileMap { dtype: Dtype::F32, slabs: 1, linears: Vec::new() });
    let bytes = Arc::new(HostBuffer::zeroed(bytes));
    AdapterImage { id: AdapterId([id; 32]), rank: 8, map, bytes, resident: Arc::default() }
}

#[derive(Clone, Debug)]
enum Action {
    Use(u8),
    Offer(u8),
    /// Ends the n-th use that lasts.
    Release(prop::sample::Index),
    Forget(u8),
    Budget(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (0u8..12).prop_map(Action::Use),
        2 => (0u8..12).prop_map(Action::Offer),
        5 => any::<prop::sample::Index>().prop_map(Action::Release),
        1 => (0u8..12).prop_map(Action::Forget),
        1 => (0usize..400).prop_map(Action::Budget),
    ];
    prop::collection::vec(action, 1..200)
}

/// The tier, those who use images, and every image there ever was.
struct Rig {
    tier: HostTier,
    budget: usize,
    held: Vec<Arc<AdapterImage>>,
    made: Vec<Weak<AdapterImage>>,
}

impl Rig {
    fn apply(&mut self, action: Action) {
        match action {
            Action::Use(id) => {
                let present = self.tier.get(AdapterId([id; 32]));
                let used = present.unwrap_or_else(|| self.tier.put(image(id, 10 + id as usize)));
                if self.made.iter().all(|made| !made.ptr_eq(&Arc::downgrade(&used))) {
                    self.made.push(Arc::downgrade(&used));
                }
                self.held.push(used);
            }
            Action::Offer(id) => {
                let offered = image(id, 10 + id as usize);
                let resident = Arc::clone(&offered.resident);
                self.tier.offer(offered);
                let kept = self.tier.get(AdapterId([id; 32]));
                let kept = kept.filter(|kept| Arc::ptr_eq(&kept.resident, &resident));
                self.made.extend(kept.as_ref().map(Arc::downgrade));
            }
            Action::Release(index) if !self.held.is_empty() => {
                self.held.swap_remove(index.index(self.held.len()));
            }
            Action::Release(_) => {}
            // Only what nobody can ask for is forgotten.
            Action::Forget(id) if self.held.iter().all(|held| held.id.0 != [id; 32]) => {
                self.tier.forget(AdapterId([id; 32]));
            }
            Action::Forget(_) => {}
            Action::Budget(bytes) => {
                self.tier.set_budget(bytes);
                self.budget = bytes;
            }
        }
    }

    fn check(&self, grew: bool) {
        let alive: Vec<_> = self.made.iter().filter_map(Weak::upgrade).collect();
        let in_use = |image: &&Arc<AdapterImage>| self.held.iter().any(|h| Arc::ptr_eq(h, image));
        let sum = |images: &mut dyn Iterator<Item = &Arc<AdapterImage>>| -> usize {
            images.map(|image| image.bytes.len()).sum()
        };
        let idle = sum(&mut alive.iter().filter(|image| !in_use(image)));
        assert!(idle <= self.budget, "host budget: {idle} of {}", self.budget);
        let all = sum(&mut alive.iter());
        assert!(!grew || idle == 0 || all <= self.budget, "idle images go before it is exceeded");
        assert_eq!(self.tier.sizes(), [alive.len(), all, self.budget]);
        for held in &self.held {
            let users = self.held.iter().filter(|other| Arc::ptr_eq(other, held)).count();
            // `alive` holds each once more.
            assert_eq!(self.tier.holders(held.id), Some(users + 1), "what is in use stays");
        }
    }
}

proptest! {
    #[test]
    fn what_is_used_stays_and_the_rest_fits_the_budget(actions in actions()) {
        let budget = 100;
        let (held, made) = (Vec::new(), Vec::new());
        let mut rig = Rig { tier: HostTier::new(budget), budget, held, made };
        for action in actions {
            let grew = matches!(action, Action::Use(_) | Action::Budget(_));
            rig.apply(action);
            rig.check(grew);
        }
    }
}

#[test]
fn the_image_used_longest_ago_makes_room() {
    let tier = HostTier::new(30);
    let ids = [0, 1, 2, 3].map(|id| AdapterId([id; 32]));
    for id in 0..3 {
        drop(tier.put(image(id, 10)));
    }
    tier.offer(image(3, 10));
    assert!(tier.get(ids[3]).is_none(), "an offer costs nobody a place");
    assert!(tier.get(ids[0]).is_some());
    drop(tier.put(image(3, 10)));
    assert_eq!(ids.map(|id| tier.get(id).is_some()), [true, false, true, true]);
    let held = ids.map(|id| tier.get(id));
    assert_eq!(held.iter().flatten().count(), 3);
    drop(tier.put(image(1, 10)));
    assert_eq!(tier.sizes(), [4, 40, 30], "images in use stay beyond the budget");
    drop(held);
    assert_eq!(tier.sizes(), [3, 30, 30], "one of them goes with its user");
    assert!(tier.get(ids[0]).is_none(), "the one used longest ago");
}
