//! Lists in Istio's config order, kept up to date without sorting them anew.

use std::{cmp::Ordering, mem, sync::Arc};

use super::resource::Item;

/// One place of such a list: what was there, and what is there now. Both have the same key.
pub(crate) type Edit<T> = (Option<Arc<Item<T>>>, Option<Arc<Item<T>>>);

/// A list of one kind's resources.
type List<T> = Vec<Arc<Item<T>>>;

/// Brings `edits` into `list`.
pub(crate) fn apply<T>(list: &mut List<T>, edits: Vec<Edit<T>>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    for (before, after) in edits {
        let place = before.and_then(|item| place(list, &item).ok());
        match (place, after) {
            (Some(place), Some(after)) if list[place].order() == after.order() => list[place] = after,
            (place, after) => {
                gone.extend(place);
                new.extend(after);
            }
        }
    }
    gone.sort_unstable();
    remove(list, &gone);
    insert(list, new);
}

fn place<T>(list: &[Arc<Item<T>>], item: &Item<T>) -> Result<usize, usize> {
    list.binary_search_by(|other| other.order().cmp(&item.order()))
}

/// Takes out what stands at these places, which are in order.
fn remove<T>(list: &mut List<T>, places: &[usize]) {
    let (mut at, mut next) = (0, places.iter().peekable());
    if !places.is_empty() {
        list.retain(|_| {
            at += 1;
            next.next_if(|place| **place == at - 1).is_none()
        });
    }
}

/// Moves each item once, however many are new.
fn insert<T>(list: &mut List<T>, mut new: List<T>) {
    new.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut parts = Vec::new();
    for item in new.into_iter().rev() {
        let place = place(list, &item).unwrap_or_else(|place| place);
        parts.push(list.split_off(place));
        parts.push(vec![item]);
    }
    parts.into_iter().rev().for_each(|part| list.extend(part));
}

/// Makes `known` the same as `now` and says where they differed: pointers are compared, and looked behind only where
/// they are not equal.
pub(crate) fn follow<T>(known: &mut List<T>, now: &[Arc<Item<T>>]) -> Vec<Edit<T>> {
    let same = |(one, other): &(&Arc<Item<T>>, &Arc<Item<T>>)| Arc::ptr_eq(one, other);
    let head = known.iter().zip(now).take_while(same).count();
    let tail = known[head..].iter().rev().zip(now[head..].iter().rev()).take_while(same).count();
    let end = known.len() - tail;
    let (older, newer) = (&mut known[head..end], &now[head..now.len() - tail]);
    let mut edits = Vec::new();
    if older.len() == newer.len() && older.iter().zip(newer).all(|(one, other)| is_version(one, other)) {
        for (place, item) in older.iter_mut().zip(newer).filter(|(one, other)| !Arc::ptr_eq(one, other)) {
            edits.push((Some(mem::replace(place, item.clone())), Some(item.clone())));
        }
        return edits;
    }
    let older: Vec<_> = known.splice(head..end, newer.iter().cloned()).collect();
    differences(older, newer)
}

/// Whether both are the same resource at the same place of the order.
fn is_version<T>(one: &Arc<Item<T>>, other: &Arc<Item<T>>) -> bool {
    Arc::ptr_eq(one, other) || one.order() == other.order()
}

fn differences<T>(older: List<T>, newer: &[Arc<Item<T>>]) -> Vec<Edit<T>> {
    let (mut older, mut newer) = (older.into_iter().peekable(), newer.iter().peekable());
    let mut edits = Vec::new();
    loop {
        let order = match (older.peek(), newer.peek()) {
            (None, None) => return edits,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => Ordering::Equal,
            (Some(one), Some(other)) => one.order().cmp(&other.order()),
        };
        let before = older.next_if(|_| order.is_le());
        let after = newer.next_if(|_| order.is_ge()).cloned();
        let same = before.as_ref().zip(after.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        if !same {
            edits.push((before, after));
        }
    }
}
