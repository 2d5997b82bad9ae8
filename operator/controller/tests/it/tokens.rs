//! A token's name is an object's or the administrator's: whoever comes second is refused, and what was there stays.

use std::sync::Arc;

use ballast_bundle::{NamespaceUid, UnixMillis};
use ballast_controller::objects::StandingToken;
use ballast_controller::tokens::{Asked, TokenError};
use ballast_fleet::token::TokenRecord;

use crate::harness::{World, namespace};

fn asked(world: &World) -> Asked {
    Asked {
        namespace: namespace(),
        namespace_name: "default".into(),
        name: "hall".into(),
        labels: [("line".to_owned(), "socket".to_owned())].into(),
        uses: 3,
        expires: UnixMillis(world.now + 1_000_000),
        allow_replace: false,
    }
}

/// An object of the same name.
fn wish(world: &World) {
    wish_as(world, namespace(), "object-1", true);
}

/// The only object of that name, from a whole or another look.
fn wish_as(world: &World, namespace: NamespaceUid, uid: &str, complete: bool) {
    let token = serde_json::json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "EnrollmentToken",
        "metadata": {"name": "hall", "namespace": "default", "uid": uid},
        "spec": {"labels": {"line": "object"}, "uses": 5},
    });
    let token = Arc::new(serde_json::from_value(token).unwrap());
    let mut objects = world.source.objects.lock().unwrap();
    objects.complete = complete;
    objects.tokens = vec![(namespace, token, world.now)];
}

async fn look(world: &World) -> Vec<TokenRecord> {
    let objects = world.source.objects.lock().unwrap().clone();
    world.controller.keep_tokens(&objects).await;
    world.store.tokens().await.unwrap()
}

fn text(world: &World) -> String {
    std::fs::read_to_string(world.directory.path().join("state/tokens/hall")).unwrap()
}

#[tokio::test]
async fn an_object_neither_changes_nor_withdraws_a_token_that_was_made_without_one() {
    let world = World::new().await;
    let made = world.controller.new_token(&asked(&world)).await.unwrap();
    let before = look(&world).await;
    assert_eq!(before.len(), 1);
    wish(&world);
    assert_eq!(look(&world).await, before, "refused");
    let world = world.restarted(5_000).await;
    assert_eq!(look(&world).await, before, "still refused");
    world.source.objects.lock().unwrap().tokens.clear();
    assert_eq!(look(&world).await, before, "it does not go with the object");
    assert_eq!(text(&world).trim(), made);
}

#[tokio::test]
async fn nobody_makes_a_token_under_an_objects_name() {
    let world = World::new().await;
    wish(&world);
    let refused = |world: &World, made: Result<String, TokenError>| match made {
        Err(TokenError::Taken(message)) => assert!(message.contains("EnrollmentToken object hall"), "{message}"),
        other => panic!("{other:?} at {}", world.now),
    };
    // Before the object's token is made, too.
    refused(&world, world.controller.new_token(&asked(&world)).await);
    let before = look(&world).await;
    assert_eq!(before[0].labels["line"], "object");
    refused(&world, world.controller.new_token(&asked(&world)).await);
    // The object is gone, and its token not yet.
    world.source.objects.lock().unwrap().tokens.clear();
    refused(&world, world.controller.new_token(&asked(&world)).await);
    assert_eq!(world.store.tokens().await.unwrap(), before);
    // Then the name is free.
    assert_eq!(look(&world).await, []);
    world.controller.new_token(&asked(&world)).await.unwrap();
    assert!(matches!(world.controller.new_token(&asked(&world)).await, Err(TokenError::Taken(_))), "once");
    assert_eq!(look(&world).await[0].labels["line"], "socket");
}

#[tokio::test]
async fn an_object_or_a_namespace_made_again_gets_a_secret_of_its_own() {
    // Whether everything was seen or not: another object in the same place says that the first one is gone.
    for complete in [true, false] {
        let world = World::new().await;
        wish(&world);
        let first = look(&world).await;
        let secret = text(&world);
        assert_eq!(look(&world).await, first, "the same object");

        wish_as(&world, namespace(), "object-2", complete);
        let second = look(&world).await;
        let rotated = text(&world);
        assert_eq!(second.len(), 1);
        assert!(second[0].hash != first[0].hash && rotated != secret, "a new object, the old secret");

        // Deleted and made again while no operator ran.
        let world = world.restarted(5_000).await;
        assert_eq!(look(&world).await, second, "a restart is no new object");
        wish_as(&world, "ns-b".parse().unwrap(), "object-3", complete);
        let third = look(&world).await;
        assert_eq!(third.len(), 1, "{third:?}");
        assert_eq!(third[0].namespace.as_str(), "ns-b");
        let last = text(&world);
        assert!(third[0].hash != second[0].hash && last != rotated, "another tenant's secret");
        assert_eq!((look(&world).await, text(&world)), (third, last), "and it stays");
    }
}

#[tokio::test]
async fn a_file_that_another_namespace_left_behind_is_nobodys() {
    let world = World::new().await;
    world.controller.new_token(&asked(&world)).await.unwrap();
    let left = text(&world);
    wish_as(&world, "ns-b".parse().unwrap(), "object-1", true);
    let records = look(&world).await;
    assert_eq!(records.len(), 2, "each has its own");
    assert!(records[0].hash != records[1].hash);
    assert_ne!(text(&world), left);
}

#[tokio::test]
async fn an_object_that_cannot_be_understood_keeps_its_token_and_nobody_elses() {
    let world = World::new().await;
    wish(&world);
    let before = look(&world).await;
    let standing = |uid: &str| {
        let mut objects = world.source.objects.lock().unwrap();
        objects.tokens.clear();
        objects.standing_tokens = vec![StandingToken {
            namespace: namespace(),
            namespace_name: "default".into(),
            name: "hall".into(),
            uid: Some(uid.into()),
        }];
    };
    standing("object-1");
    assert_eq!(look(&world).await, before);
    assert!(matches!(world.controller.new_token(&asked(&world)).await, Err(TokenError::Taken(_))));
    standing("object-2");
    assert_eq!(look(&world).await, [], "that one it was not made from");
}
