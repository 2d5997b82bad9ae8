//! One behaviour, two sources: the same story told to an operator that reads a directory and to one that reads an API server
//! must be heard the same.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ballast_tests::System;
use serde_json::{Value, json};

use super::plant::{LIMIT, Plant, digits, example};

/// An operator with one gateway, wherever its objects come from.
trait World {
    /// Where a file of the digits example is.
    fn uri(&self, file: &str) -> String;
    /// Puts an object there that is right.
    fn apply(&mut self, object: &Value) -> Result<()>;
    /// Offers one that is wrong; what a person is told.
    fn refuses(&mut self, object: &Value) -> Result<String>;
    /// Takes a deployment away.
    fn delete(&mut self, name: &str) -> Result<()>;
    /// A deployment with its status.
    fn look(&mut self, name: &str) -> Result<Option<Value>>;
    /// Fails unless the gateway answers rightly, by this version.
    fn serves(&mut self, version: &str) -> Result<()>;
    /// Whether the gateway knows a model of the name `digits`.
    fn knows(&mut self) -> Result<bool>;
}

impl World for Plant {
    fn uri(&self, file: &str) -> String {
        self.models.uri(file)
    }

    fn apply(&mut self, object: &Value) -> Result<()> {
        Self::apply(self, object).map(drop)
    }

    fn refuses(&mut self, object: &Value) -> Result<String> {
        let output = self.cluster.try_with(&["apply", "--filename", "-"], &object.to_string())?;
        ensure!(!output.status.success(), "accepted: {object}");
        Ok(super::said(&output))
    }

    fn delete(&mut self, name: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", LIMIT.as_secs());
        self.cluster.kubectl(&["delete", "mdep", name, "--namespace", "plant", &timeout]).map(drop)
    }

    fn look(&mut self, name: &str) -> Result<Option<Value>> {
        let list = self.cluster.get(&["mdep", "--namespace", "plant"])?;
        let items = list["items"].as_array().context("no list")?;
        Ok(items.iter().find(|item| item["metadata"]["name"] == name).cloned())
    }

    fn serves(&mut self, version: &str) -> Result<()> {
        Self::serves(self, version)
    }

    fn knows(&mut self) -> Result<bool> {
        Self::knows(self)
    }
}

impl World for System {
    fn uri(&self, file: &str) -> String {
        format!("file:///{file}")
    }

    fn apply(&mut self, object: &Value) -> Result<()> {
        // JSON is YAML.
        self.put(&format!("{}.yaml", object["metadata"]["name"].as_str().context("no name")?), &object.to_string())
    }

    fn refuses(&mut self, object: &Value) -> Result<String> {
        let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
        let before = std::fs::read_to_string(self.directory().join(format!("{name}.yaml")))?;
        World::apply(self, object)?;
        let told = |system: &mut Self| {
            let shown = system.fleet.cli.run(&["rollout", "status", &name])?;
            Ok::<_, anyhow::Error>(shown.lines().find(|line| line.starts_with("NOT ACCEPTED")).map(str::to_owned))
        };
        let said = self.until("the refusal", told)?;
        self.put(&format!("{name}.yaml"), &before)?;
        self.until("the object to be right again", |system| Ok(told(system)?.is_none().then_some(())))?;
        Ok(said)
    }

    fn delete(&mut self, name: &str) -> Result<()> {
        std::fs::remove_file(self.directory().join(format!("{name}.yaml")))?;
        self.until("the object to go", |system| Ok(system.look(name)?.is_none().then_some(())))
    }

    fn look(&mut self, name: &str) -> Result<Option<Value>> {
        let shown = self.fleet.cli.run(&["rollout", "status", name, "-o", "json"]);
        match shown {
            Ok(json) => Ok(Some(serde_json::from_str(&json)?)),
            Err(error) if error.to_string().contains("there is no ModelDeployment") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn serves(&mut self, version: &str) -> Result<()> {
        Self::serves(self, version)
    }

    fn knows(&mut self) -> Result<bool> {
        Ok(self.connect(0).get("/v2/models/digits")?.status == 200)
    }
}

/// Waits, and says what is there when it waited in vain.
fn until(world: &mut dyn World, what: &str, name: &str, found: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let seen = world.look(name).unwrap();
        if let Some(object) = seen.clone().filter(&found) {
            return object;
        }
        assert!(began.elapsed() < LIMIT, "waited for {what}: {:?}", seen.map(|object| object["status"].clone()));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name)
}

fn is(object: &Value, name: &str, status: &str, reason: &str) -> bool {
    // Of the wish that is there, and not of the one before.
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
        && condition(object, name).is_some_and(|c| c["status"] == status && c["reason"] == reason)
}

/// What of an object must be the same wherever it came from.
fn heard(object: &Value) -> String {
    let conditions = ["Ready", "BundlesSigned", "Reconciling", "Stalled", "Degraded"]
        .map(|name| condition(object, name).map(|c| format!("{name}={} {}", c["status"], c["reason"])));
    let status = &object["status"];
    let told = format!(
        "generation {} phase {} current {} update {} {conditions:?}",
        object["metadata"]["generation"],
        status["phase"],
        status["currentRelease"]["version"],
        status["updateRelease"]["version"],
    );
    // On the way gateways count as they come.
    let complete = condition(object, "Ready").is_some_and(|c| c["status"] == "True");
    if complete { format!("{told} ready {} gateways {}", status["ready"], status["gateways"]) } else { told }
}

/// Create, wrong update, pause and resume, a release that is refused, undo, a rival, delete.
fn story(world: &mut dyn World, selector: &Value, namespace: &str) -> Vec<String> {
    let mut told = Vec::new();
    let wish = |world: &dyn World, version: &str| {
        let mut object = digits(|file| world.uri(file), selector, version);
        object["metadata"]["namespace"] = json!(namespace);
        object
    };
    let first = wish(world, "1.0.0");
    world.apply(&first).unwrap();
    told.push(heard(&until(world, "1.0.0", "digits", |o| is(o, "Ready", "True", "Complete"))));
    world.serves("1.0.0").unwrap();

    for (pointer, value, sentence) in [
        ("/spec/rollout/soak", json!("soon"), "write digits and ms, s, m or h, like 200ms or 1h30m"),
        ("/spec/model/name", json!("letters"), "model.name cannot change"),
    ] {
        let mut wrong = first.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[key] = value;
        let said = world.refuses(&wrong).unwrap();
        assert!(said.contains(sentence), "{said}");
        told.push(heard(&world.look("digits").unwrap().unwrap()));
    }
    world.serves("1.0.0").unwrap();

    let mut second = wish(world, "2.0.0");
    second["spec"]["rollout"]["paused"] = json!(true);
    world.apply(&second).unwrap();
    told.push(heard(&until(world, "the pause", "digits", |o| is(o, "Ready", "False", "Paused"))));
    world.serves("1.0.0").unwrap();
    second["spec"]["rollout"]["paused"] = json!(false);
    world.apply(&second).unwrap();
    let complete = |o: &Value| is(o, "Ready", "True", "Complete");
    told.push(heard(&until(world, "2.0.0", "digits", complete)));
    world.serves("2.0.0").unwrap();

    let third = wish(world, "3.0.0");
    world.apply(&third).unwrap();
    told.push(heard(&until(world, "the refusal of 3.0.0", "digits", |o| is(o, "Stalled", "True", "GoldenMismatch"))));
    world.serves("2.0.0").unwrap();
    world.apply(&second).unwrap();
    told.push(heard(&until(world, "2.0.0 again", "digits", complete)));
    world.serves("2.0.0").unwrap();

    let mut rival = wish(world, "1.0.0");
    rival["metadata"]["name"] = json!("rival");
    rival["spec"]["model"]["name"] = json!("digits");
    world.apply(&rival).unwrap();
    told.push(heard(&until(world, "the conflict", "rival", |o| is(o, "Stalled", "True", "NameConflict"))));
    world.serves("2.0.0").unwrap();
    world.delete("rival").unwrap();

    world.delete("digits").unwrap();
    let began = Instant::now();
    while world.knows().unwrap() {
        assert!(began.elapsed() < LIMIT, "the gateway keeps a model that nobody wishes for");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    told
}

#[test]
fn an_operator_behaves_the_same_on_a_directory_and_on_an_api_server() {
    let mut system = System::start(1).unwrap();
    for file in ["digits-1.0.0.onnx", "digits-2.0.0.onnx", "digits-3.0.0.onnx", "golden.safetensors"] {
        system.fleet.add_file(&example(file), file).unwrap();
    }
    let directory = story(&mut system, &json!({"fleet": "demo"}), "default");
    drop(system);

    let mut plant = Plant::start();
    plant.start_operator("ballast-0").unwrap();
    plant.add_gateway().unwrap();
    let server = story(&mut plant, &json!({"hall": "3"}), "plant");
    assert_eq!(directory, server);
}
