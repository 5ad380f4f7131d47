//! Checks edits of JSON text against `serde_json`.

use serde_json::value::RawValue;

use super::{Input, members::Members};
use crate::json::splice::{Object, Splice, elements};

/// Checks that members, elements and edits are what `serde_json` finds. Text that is not JSON must not panic.
pub fn splice(input: &[u8]) {
    let input = Input::read(input);
    let text = String::from_utf8_lossy(&input.text);
    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
    let found: Vec<&str> = elements(&text).collect();
    if is_json && let Ok(expected) = serde_json::from_str::<Vec<&RawValue>>(&text) {
        assert_eq!(found, expected.iter().map(|element| element.get()).collect::<Vec<_>>(), "{text:?}");
    }
    let Some(object) = Object::of(&text) else { return };
    let names: Vec<String> = object.members().map(|member| member.name()).collect();
    let pick = |number: u8| names.get(usize::from(number) % names.len().max(1)).map_or("a", String::as_str);
    let (set, without) = (pick(input.choice & 15), pick(input.choice >> 4));
    let mut splice = Splice::new(&text);
    splice.edit(object, &[(set, "[7]"), ("new", "null")], |member| member.is(without));
    let edited = splice.finish();
    if is_json {
        check(&text, object, &edited, set, without);
    }
}

fn check(text: &str, object: Object<'_>, edited: &[u8], set: &str, without: &str) {
    let Members(members) = Members::of(text).expect("it is an object");
    let found: Vec<&str> = object.members().map(|member| member.value).collect();
    assert_eq!(found, members.iter().map(|(_, value)| *value).collect::<Vec<_>>(), "{text:?}");
    // A name that is not valid Unicode is empty here.
    let spelled = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap_or_default();
    let is_gone = |name: &str| [set, without, "new"].contains(&name);
    let members = members.into_iter().map(|(name, value)| (spelled(&name), value)).collect::<Vec<_>>();
    for (found, (name, _)) in object.members().zip(&members) {
        assert!(found.name() == *name && found.is(name), "{text:?}: {found:?}");
    }
    let last = members.iter().rev().find(|(name, _)| name == set).map(|(_, value)| *value);
    assert_eq!(object.get(set), last, "{text:?}");
    let mut expected = vec![(set.to_owned(), "[7]"), ("new".to_owned(), "null")];
    expected.extend(members.into_iter().filter(|(name, _)| !is_gone(name)));
    let edited = std::str::from_utf8(edited).unwrap();
    let Members(edited) = Members::of(edited).unwrap_or_else(|| panic!("{text:?} became {edited:?}"));
    let edited: Vec<_> = edited.into_iter().map(|(name, value)| (spelled(&name), value)).collect();
    assert_eq!(edited, expected, "{text:?}");
}
