//! Every world that a small set of releases and assignments can reach, with a power cut after every prefix of effects;
//! then long random runs over a larger one.

mod two;
mod world;

use std::collections::{HashSet, VecDeque};

use ballast_slots::Wish;
use world::{Happening, World};

#[test]
fn every_world_of_updates_keeps_its_promises() {
    // First, better, a third on top of either, and waiting.
    let worlds = explore(World::new(true, false), &world::updates());
    assert!(worlds.iter().any(|w| w.disk.active.as_ref().is_some_and(|h| h.release.version == "4")));
    assert!(worlds.iter().any(|w| w.disk.fallback.is_some() && !w.disk.rejected.is_empty()));
}

#[test]
fn every_world_of_relabels_and_ways_back_keeps_its_promises() {
    let worlds = explore(World::new(true, false), &world::relabels());
    assert!(worlds.iter().any(|w| w.disk.active.as_ref().is_some_and(|h| h.release.version == "3")));
    assert!(worlds.iter().any(|w| w.disk.fallback.is_some() && !w.disk.rejected.is_empty()));
}

#[test]
fn every_world_with_a_disk_that_fails_keeps_its_promises() {
    let wishes = world::updates();
    let worlds = explore(World::new(true, true), &wishes[1..3]);
    assert!(worlds.iter().any(|w| w.disk.active.as_ref().is_some_and(|h| h.release.version == "4")));
    assert!(worlds.iter().any(World::is_ahead_of_its_disk));
}

#[test]
fn every_world_that_forgets_rejections_keeps_its_promises() {
    let worlds = explore(World::weary(true), &world::updates()[1..3]);
    assert!(worlds.iter().any(|w| w.disk.rejected_up_to.is_some()));
}

fn explore(start: World, wishes: &[Wish]) -> HashSet<World> {
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    let mut arrows = 0u64;
    while let Some(world) = queue.pop_front() {
        for happening in world.happenings(wishes) {
            for next in world.after(&happening) {
                arrows += 1;
                if !seen.contains(&next) {
                    seen.insert(next.clone());
                    queue.push_back(next);
                }
            }
        }
    }
    println!("{} worlds, {arrows} arrows", seen.len());
    // A search that stopped at the door would prove nothing.
    assert!(seen.len() > 1_000, "only {} worlds", seen.len());
    seen
}

#[test]
fn long_random_lives_keep_their_promises() {
    for seed in 1..=50u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let wishes = world::random_wishes(&mut || random.next());
        let mut world = World::new(false, seed % 2 == 0);
        let mut random = Random(seed | 1 << 40);
        for _ in 0..1_000 {
            let happenings = world.happenings(&wishes);
            let happening: &Happening = &happenings[random.next() as usize % happenings.len()];
            let mut nexts = world.after(happening);
            // Mostly no power cut, or nothing would ever become Active.
            let at =
                if random.next().is_multiple_of(8) { random.next() as usize % nexts.len() } else { nexts.len() - 1 };
            world = nexts.swap_remove(at);
        }
    }
}

/// xorshift64*: seeds replay.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}
