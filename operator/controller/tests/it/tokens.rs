//! A token's name is an object's or the administrator's: whoever comes second is refused, and what was there stays.

use std::sync::Arc;

use ballast_bundle::UnixMillis;
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
    let token = serde_json::json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "EnrollmentToken",
        "metadata": {"name": "hall", "namespace": "default"},
        "spec": {"labels": {"line": "object"}, "uses": 5},
    });
    let token = Arc::new(serde_json::from_value(token).unwrap());
    let mut objects = world.source.objects.lock().unwrap();
    objects.complete = true;
    objects.tokens.push((namespace(), token, world.now));
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
