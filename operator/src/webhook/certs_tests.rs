//! Plans by age, and certificates that a client accepts.

use super::*;

fn names() -> Vec<String> {
    ["127.0.0.1", "op.cultivar-system.svc", "op.cultivar-system.svc.cluster.local"].map(str::to_owned).into()
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn days(count: i32) -> SignedDuration {
    DAY * count
}

fn after(plan: Plan, contents: Option<&Contents>, now: Timestamp) -> Contents {
    carry_out(plan, contents, now, &names()).unwrap().expect("contents change")
}

#[test]
fn what_is_issued_is_accepted_for_every_name_until_it_ends() {
    let contents = after(Plan::IssueAll, None, start());
    assert_eq!(contents.authorities.len(), 1);
    contents.verify(start()).unwrap();
    contents.verify(start() - SignedDuration::from_mins(50)).expect("an API server's clock may be behind");
    contents.verify(start() + days(89)).unwrap();
    assert!(contents.verify(start() + days(91)).is_err());
    let mut other = contents.clone();
    other.record.leaf.names.push("evil.example".to_owned());
    assert!(other.verify(start()).is_err());
}

#[test]
fn nothing_happens_until_two_thirds_of_the_leafs_life() {
    let contents = after(Plan::IssueAll, None, start());
    let plan_at = |now, names: &[String]| plan(Some(&contents), now, names, None);
    assert_eq!(plan(None, start(), &names(), None), Plan::IssueAll);
    assert_eq!(plan_at(start(), &names()), Plan::Keep);
    assert_eq!(plan_at(start() + days(59), &names()), Plan::Keep);
    assert_eq!(plan_at(start() + days(60), &names()), Plan::IssueLeaf);
    assert_eq!(plan_at(start(), &names()[1..]), Plan::IssueLeaf, "other names");
    assert_eq!(plan_at(start() + days(91), &names()), Plan::IssueLeaf, "expired, but the authority is good");
    assert_eq!(plan_at(start() + days(400), &names()), Plan::IssueAll, "everything expired");
    let leaf = after(Plan::IssueLeaf, Some(&contents), start() + days(60));
    leaf.verify(start() + days(149)).unwrap();
    assert_eq!(leaf.authorities, contents.authorities);
}

#[test]
fn an_authority_is_replaced_in_steps_and_every_step_is_accepted() {
    let first = after(Plan::IssueAll, None, start());
    let mut now = start() + days(243);
    let old = after(Plan::IssueLeaf, Some(&first), now);
    now += days(1);

    assert_eq!(plan(Some(&old), now, &names(), Some(start())), Plan::AddAuthority);
    let both = after(Plan::AddAuthority, Some(&old), now);
    assert_eq!((both.authorities.len(), &both.leaf), (2, &old.leaf));
    both.verify(now).unwrap();

    assert_eq!(plan(Some(&both), now, &names(), None), Plan::Keep, "not trusted yet");
    let early = now + SignedDuration::from_secs(119);
    assert_eq!(plan(Some(&both), early, &names(), Some(now)), Plan::Keep, "not trusted for long");
    let trusted = now + TRUST_WAIT;
    assert_eq!(plan(Some(&both), trusted, &names(), Some(now)), Plan::IssueLeaf);
    let new = after(Plan::IssueLeaf, Some(&both), trusted);
    new.verify(trusted).unwrap();
    assert_eq!(new.authorities, both.authorities);

    assert_eq!(plan(Some(&new), trusted, &names(), Some(now)), Plan::Keep, "others still serve the old leaf");
    let later = trusted + DROP_WAIT;
    assert_eq!(plan(Some(&new), later, &names(), Some(now)), Plan::DropAuthorities);
    let one = after(Plan::DropAuthorities, Some(&new), later);
    assert_eq!(one.authorities, new.authorities[..1]);
    one.verify(later).unwrap();
    assert_eq!(plan(Some(&one), later, &names(), None), Plan::Keep);
}

#[test]
fn what_is_broken_is_replaced_without_waiting() {
    let good = after(Plan::IssueAll, None, start());
    let other = after(Plan::IssueAll, None, start());
    let replan = |contents: &Contents| plan(Some(contents), start(), &names(), None);

    let foreign_leaf = Contents { leaf: other.leaf.clone(), leaf_key: other.leaf_key.clone(), ..good.clone() };
    assert_eq!(replan(&foreign_leaf), Plan::IssueLeaf, "a leaf of somebody else");
    after(Plan::IssueLeaf, Some(&foreign_leaf), start()).verify(start()).unwrap();
    let wrong_key = Contents { leaf_key: other.leaf_key.clone(), ..good.clone() };
    assert_eq!(replan(&wrong_key), Plan::IssueLeaf, "a key of another leaf");
    let garbage = Contents { leaf: "x".to_owned(), authority_key: "y".to_owned(), ..good.clone() };
    assert_eq!(replan(&garbage), Plan::IssueAll, "nothing to issue with");
    let no_authority_key = Contents { authority_key: other.authority_key, ..good };
    assert_eq!(replan(&no_authority_key), Plan::AddAuthority, "served well, but no leaf could follow");
}
