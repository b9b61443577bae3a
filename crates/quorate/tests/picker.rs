//! Pickers: fair, true to the weights, and away from what fails.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // here a panic is a failed test

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate::{Client, ConnectOptions, Instance, Picker, Registration, Service, Strategy, Tracker};
use support::{machine::Machine, until, world::World};
use tokio::time::sleep;

/// A service with instances, on a machine whose chance is always the same.
struct Scene {
    client: Client,
    registered: BTreeMap<&'static str, Registration>,
    tracker: Tracker,
}

impl Scene {
    async fn new(instances: &[(&'static str, Instance)]) -> Self {
        let machine = Machine::new(1.0, 7);
        let options = ConnectOptions::memory().runtime(Arc::new(machine));
        let client = World::memory().join_with(options).client;
        let mut registered = BTreeMap::new();
        for (id, instance) in instances {
            let registration = api(&client).register(*id, instance.clone()).await.unwrap();
            registered.insert(*id, registration);
        }
        let tracker = api(&client).track().await.unwrap();
        Self {
            client,
            registered,
            tracker,
        }
    }

    async fn of(ids: &[&'static str]) -> Self {
        let instances: Vec<_> = ids.iter().map(|id| (*id, Instance::new(*id))).collect();
        Self::new(&instances).await
    }

    async fn until_known(&self, what: impl Fn(&quorate::Instances) -> bool) {
        until("the tracker knows", async || what(&self.tracker.peek())).await;
    }
}

fn api(client: &Client) -> Service {
    client.service("api")
}

fn id(picker: &Picker) -> String {
    picker.pick().unwrap().id().to_owned()
}

/// How often each instance is picked.
fn spread(picker: &Picker, picks: u32) -> BTreeMap<String, u32> {
    let mut spread = BTreeMap::new();
    for _ in 0..picks {
        *spread.entry(id(picker)).or_default() += 1;
    }
    spread
}

fn fail(picker: &Picker, id: &str) {
    loop {
        let pick = picker.pick().unwrap();
        if pick.id() == id {
            return pick.failed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn instances_are_picked_in_turn() {
    let scene = Scene::of(&["a", "b", "c"]).await;
    for strategy in [Strategy::RoundRobin, Strategy::LeastRecentlyFailed] {
        let picker = scene.tracker.picker(strategy);
        let first: Vec<_> = (0..3).map(|_| id(&picker)).collect();
        let second: Vec<_> = (0..3).map(|_| id(&picker)).collect();
        assert_eq!(first, second);
        assert_eq!(
            spread(&picker, 300).into_values().collect::<Vec<_>>(),
            [100; 3]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn chance_picks_each_as_often_as_any_other() {
    let scene = Scene::of(&["a", "b", "c", "d"]).await;
    let spread = spread(&scene.tracker.picker(Strategy::Random), 4000);
    assert!(
        spread.values().all(|picks| (900..1100).contains(picks)),
        "{spread:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn weights_are_kept_to_over_short_times_too() {
    let heavy = [("a", 5), ("b", 3), ("c", 1), ("d", 0), ("e", 1)];
    let instances = heavy.map(|(id, weight)| (id, Instance::new(id).weight(weight)));
    let picker = Scene::new(&instances)
        .await
        .tracker
        .picker(Strategy::Weighted);
    for _ in 0..20 {
        let spread = spread(&picker, 100);
        for (id, weight) in heavy {
            let picks = spread.get(id).copied().unwrap_or_default();
            assert!(picks.abs_diff(10 * weight) <= 3, "{id}: {spread:?}");
        }
        assert_eq!(spread.get("d"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_picked_and_who_leaves_drains_or_weighs_nothing_is_not() {
    let mut scene = Scene::of(&["a", "b"]).await;
    for strategy in [
        Strategy::LeastRecentlyFailed,
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::Weighted,
    ] {
        let picker = scene.tracker.picker(strategy);
        let c = api(&scene.client)
            .register("c", Instance::new("c"))
            .await
            .unwrap();
        scene.until_known(|now| now.len() == 3).await;
        assert_eq!(spread(&picker, 100).len(), 3);
        c.release().await.unwrap();
        scene.until_known(|now| now.len() == 2).await;
        assert_eq!(spread(&picker, 100).len(), 2);

        let a = scene.registered.get_mut("a").unwrap();
        a.drain().await.unwrap();
        scene
            .until_known(|now| now.get("a").unwrap().draining)
            .await;
        assert_eq!(spread(&picker, 100).into_keys().collect::<Vec<_>>(), ["b"]);
        let b = scene.registered.get_mut("b").unwrap();
        b.set(Instance::new("b").weight(0)).await.unwrap();
        scene
            .until_known(|now| now.get("b").unwrap().weight == 0)
            .await;
        assert!(picker.pick().is_none());
        let b = scene.registered.get_mut("b").unwrap();
        b.set(Instance::new("b")).await.unwrap();
        scene
            .registered
            .get_mut("a")
            .unwrap()
            .undrain()
            .await
            .unwrap();
        scene
            .until_known(|now| now.iter().all(|(_, one)| one.weight == 1 && !one.draining))
            .await;
        assert_eq!(spread(&picker, 100).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_left_alone_longer_each_time_and_not_for_ever() {
    let scene = Scene::of(&["a", "b", "c"]).await;
    let picker = scene.tracker.picker(Strategy::RoundRobin);
    let mut longest = Duration::ZERO;
    for failure in 0..12_u32 {
        fail(&picker, "a");
        let mut left_alone = Duration::ZERO;
        while !spread(&picker, 6).contains_key("a") {
            sleep(Duration::from_millis(50)).await;
            left_alone += Duration::from_millis(50);
        }
        let bound = Duration::from_secs(1 << failure.min(5)).min(Duration::from_secs(30));
        assert!(left_alone >= bound / 2 && left_alone <= bound + Duration::from_millis(50));
        longest = longest.max(left_alone);
    }
    assert!(longest > Duration::from_secs(15));
    // An answer makes it as good as any other.
    loop {
        let pick = picker.pick().unwrap();
        if pick.id() == "a" {
            break pick.succeeded();
        }
    }
    assert_eq!(spread(&picker, 30)["a"], 10);
    fail(&picker, "a");
    sleep(Duration::from_secs(1)).await;
    assert!(spread(&picker, 6).contains_key("a"));
}

#[tokio::test(start_paused = true)]
async fn one_pick_tests_what_had_failed() {
    let scene = Scene::of(&["a", "b"]).await;
    let picker = scene.tracker.picker(Strategy::RoundRobin);
    fail(&picker, "a");
    sleep(Duration::from_secs(1)).await;
    let (first, second) = (picker.pick().unwrap(), picker.pick().unwrap());
    let test = if first.id() == "a" { first } else { second };
    assert_eq!(test.id(), "a");
    assert_eq!(spread(&picker, 10).into_keys().collect::<Vec<_>>(), ["b"]);
    // Who was dropped has told nothing, and another may try.
    drop(test);
    assert_eq!(spread(&picker, 10)["a"], 5);
    // A failure that comes late says nothing of a later incarnation.
    let late = loop {
        let pick = picker.pick().unwrap();
        if pick.id() == "b" {
            break pick;
        }
    };
    let mut scene = scene;
    scene
        .registered
        .remove("b")
        .unwrap()
        .release()
        .await
        .unwrap();
    scene.until_known(|now| now.len() == 1).await;
    assert_eq!(spread(&picker, 10)["a"], 10);
    let again = api(&scene.client)
        .register("b", Instance::new("b"))
        .await
        .unwrap();
    scene.until_known(|now| now.len() == 2).await;
    late.failed();
    assert_eq!(spread(&picker, 10)["b"], 5);
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn many_calls_that_fail_together_are_one_failure() {
    let scene = Scene::of(&["a", "b"]).await;
    let picker = scene.tracker.picker(Strategy::RoundRobin);
    let picks: Vec<_> = (0..40).map(|_| picker.pick().unwrap()).collect();
    for pick in picks {
        if pick.id() == "a" {
            pick.failed();
        }
    }
    assert!(!spread(&picker, 10).contains_key("a"));
    sleep(Duration::from_secs(1)).await;
    assert!(spread(&picker, 10).contains_key("a"));
}

#[tokio::test(start_paused = true)]
async fn if_all_have_failed_the_one_whose_failure_is_longest_ago_is_picked() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastRecentlyFailed] {
        let scene = Scene::of(&["a", "b", "c"]).await;
        let picker = scene.tracker.picker(strategy);
        for id in ["b", "c", "a"] {
            fail(&picker, id);
        }
        for expected in ["b", "c", "a", "b"] {
            assert_eq!(id(&picker), expected);
            picker.pick().unwrap().failed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn least_recently_failed_stays_with_what_works() {
    let scene = Scene::of(&["a", "b"]).await;
    let picker = scene.tracker.picker(Strategy::LeastRecentlyFailed);
    for id in ["a", "b"] {
        fail(&picker, id);
    }
    sleep(Duration::from_secs(60)).await;
    picker.pick().unwrap().succeeded();
    assert_eq!(spread(&picker, 10)["a"], 10);
}
