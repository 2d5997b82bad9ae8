//! Escalation policies: what a good one does, and every way in which one is not.

use ballast_bundle::*;

use crate::world::*;

const THRESHOLD: u16 = 8_500;

fn threshold(n: u16) -> Threshold {
    Threshold::try_from(n).unwrap()
}

fn policy() -> EscalationPolicy {
    let world = World::good();
    EscalationPolicy {
        format: 1,
        fleet: world.gateway.audience.fleet,
        deployment: world.gateway.deployment,
        release: world.release.number,
        epoch: 1,
        sequence: Counter(ISSUED + 5),
        issued: UnixMillis(ISSUED),
        expires: UnixMillis(ISSUED + 30 * DAY),
        thresholds: ClassThresholds { classes: [(3, threshold(9_500))].into(), others: threshold(THRESHOLD) },
    }
}

/// The trust root of a fleet whose assignment role is two keys of three.
fn root() -> Verified<TrustRoot> {
    let (root, _) = &World::good().roots[0];
    Unverified::new(sign_root(root, &[&key(ROOT_1)])).first_root().unwrap()
}

fn signed(policy: &EscalationPolicy, keys: &[u8]) -> Envelope {
    let keys: Vec<_> = keys.iter().map(|seed| key(*seed)).collect();
    sign_envelope(POLICY_TYPE, &to_json(policy), &keys.iter().collect::<Vec<_>>())
}

fn verify(envelope: Envelope) -> Result<Verified<EscalationPolicy>, VerifyError> {
    let floor = PolicyFloor { epoch: 1, sequence: Counter(ISSUED + 5) };
    Unverified::new(envelope).escalation_policy(&root(), &policy().deployment, floor, UnixMillis(ISSUED + DAY))
}

fn refused(edit: impl FnOnce(&mut EscalationPolicy)) -> String {
    let mut policy = policy();
    edit(&mut policy);
    verify(signed(&policy, &ASSIGNMENT[..2])).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_good_policy_is_in_force_for_its_release_until_it_expires() {
    let verified = verify(signed(&policy(), &ASSIGNMENT[..2])).unwrap();
    assert_eq!(*verified, policy());
    let own = ClassThresholds::same(Threshold::NOTHING);
    let release = policy().release;
    let other = ReleaseNumber { counter: Counter(release.counter.0 - 1), ..release };
    let (before, at) = (UnixMillis(ISSUED + 30 * DAY - 1), UnixMillis(ISSUED + 30 * DAY));
    assert_eq!(verified.in_force(release, &own, before), &policy().thresholds);
    assert_eq!(verified.in_force(release, &own, at), &own, "expired");
    assert_eq!(verified.in_force(other, &own, before), &own, "rolled back to the release before");
    let thresholds = &verified.thresholds;
    assert!(thresholds.sends(3, Confidence::of(0.9)) && !thresholds.sends(4, Confidence::of(0.9)));
}

#[test]
fn one_key_signs_and_the_text_is_short() {
    let mut only = World::good().roots[0].0.clone();
    only.roles.insert(Role::Assignment, keys_of(&ASSIGNMENT[..1], 1));
    let root = Unverified::new(sign_root(&only, &[&key(ROOT_1)])).first_root().unwrap();
    let envelope = sign_policy(&policy(), &key(ASSIGNMENT[0]));
    let now = UnixMillis(ISSUED);
    let verified = Unverified::new(envelope.clone())
        .escalation_policy(&root, &policy().deployment, PolicyFloor::default(), now)
        .unwrap();
    assert_eq!(*verified, policy());
    assert!(to_json(&envelope).len() < 1_000, "{}", to_json(&envelope).len());
}

#[test]
fn whoever_has_no_key_sets_no_threshold() {
    for keys in [&[STRANGER, RELEASE][..], &[RUNTIME, ROOT_1], &ASSIGNMENT[..1], &[]] {
        let error = verify(signed(&policy(), keys)).unwrap_err().to_string();
        assert!(error.contains("of 2 needed signatures"), "{error}");
    }
    // A pointer's signature is not a policy's, whatever it was over.
    let keys: Vec<_> = ASSIGNMENT.iter().map(|seed| key(*seed)).collect();
    let as_pointer = sign_envelope(POINTER_TYPE, &to_json(&policy()), &keys.iter().collect::<Vec<_>>());
    assert!(verify(as_pointer.clone()).unwrap_err().to_string().contains("expected a document of type"));
    let renamed = Envelope { payload_type: POLICY_TYPE.into(), ..as_pointer };
    assert!(verify(renamed).unwrap_err().to_string().contains("0 of 2 needed signatures"));
}

#[test]
fn each_wrong_policy_says_what_is_wrong_with_it() {
    for (error, says) in [
        (refused(|policy| policy.sequence = Counter(ISSUED + 4)), "a replay"),
        (refused(|policy| policy.epoch = 0), "epoch 0 is not the trust root's"),
        (refused(|policy| policy.epoch = 2), "epoch 2 is not the trust root's"),
        (refused(|policy| policy.fleet = "fleet-2".parse().unwrap()), "made for fleet fleet-2"),
        (refused(|policy| policy.deployment.name = "other".into()), "another deployment"),
        (
            refused(|policy| {
                policy.issued = UnixMillis(ISSUED - 2 * DAY);
                policy.expires = UnixMillis(ISSUED);
            }),
            "expired",
        ),
        (refused(|policy| policy.issued = UnixMillis(ISSUED + 31 * DAY)), "before it was issued"),
        (refused(|policy| policy.expires = UnixMillis(ISSUED + 91 * DAY)), "more than 90 days"),
        (refused(|policy| policy.format = 2), "format 2 is newer"),
        (
            refused(|policy| policy.thresholds.classes = (0..40_000).map(|class| (class, threshold(1))).collect()),
            "larger than 262144 bytes",
        ),
    ] {
        assert!(error.contains(says), "{error}");
    }
    let text = String::from_utf8(to_json(&policy())).unwrap();
    for (from, to) in [("9500", "10002"), ("8500", "-1"), ("\"others\"", "\"rest\""), ("{\"3\"", "{\"x\"")] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        let keys: Vec<_> = ASSIGNMENT.iter().map(|seed| key(*seed)).collect();
        let envelope = sign_envelope(POLICY_TYPE, edited.as_bytes(), &keys.iter().collect::<Vec<_>>());
        let error = verify(envelope).unwrap_err().to_string();
        assert!(error.contains("not an escalation policy"), "{error}");
    }
}

#[test]
fn a_lost_assignment_key_is_answered_by_a_new_epoch() {
    let floor = PolicyFloor { epoch: 1, sequence: Counter(u64::MAX) };
    assert!(policy().floor() < floor);
    let mut next = World::good().roots[0].0.clone();
    next.epoch = 2;
    let root = Unverified::new(sign_root(&next, &[&key(ROOT_1)])).first_root().unwrap();
    let fresh = EscalationPolicy { epoch: 2, ..policy() };
    let envelope = signed(&fresh, &ASSIGNMENT[..2]);
    let verified =
        Unverified::new(envelope).escalation_policy(&root, &fresh.deployment, floor, UnixMillis(ISSUED)).unwrap();
    assert!(verified.floor() > floor);
}
