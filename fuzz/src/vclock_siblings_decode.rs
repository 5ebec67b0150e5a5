//! Arbitrary bytes as an object, a set or a version vector.

use gramme_vclock::{
    FixedSiblings, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableVersionVector,
};

/// Decodes the same bytes as each type.
///
/// # Panics
/// If what decodes breaks its type's promises.
pub fn run(data: &[u8]) {
    let bound = 4096 + 256 * data.len();
    let object = crate::meter::within(bound, || postcard::from_bytes::<GrowableSiblings<u8>>(data));
    if let Ok(object) = &object {
        let dots: Vec<_> = object.iter().map(|(dot, _)| dot).collect();
        assert!(dots.is_sorted_by(|a, b| a < b));
        assert!(dots.iter().all(|dot| object.seen().contains(*dot) && object.get(*dot).is_some()));
        assert_eq!(object.len(), dots.len());
        let (entries, seen) = object.clone().into_parts();
        assert_eq!(GrowableSiblings::from_parts(entries, seen).as_ref(), Ok(object));
        let bytes = postcard::to_allocvec(object).expect("an object has an encoding");
        assert_eq!(postcard::from_bytes::<GrowableSiblings<u8>>(&bytes).as_ref(), Ok(object));
        let mut twice = object.clone();
        let Ok(merged) = twice.merge(object.clone());
        assert!(!merged.changed && &twice == object);
    }
    if let Ok(fixed) = postcard::from_bytes::<FixedSiblings<u8, 2, 3>>(data) {
        let object = object.expect("what fits in less fits in more");
        assert!(fixed.iter().eq(object.iter()) && fixed.seen().spans() == object.seen().spans());
    }
    if let Ok(set) = crate::meter::within(bound, || postcard::from_bytes::<GrowableDotSet>(data)) {
        let again = GrowableDotSet::from_spans(set.spans().iter().rev().copied());
        assert_eq!(again, Ok(set));
    }
    if let Ok(context) = crate::meter::within(bound, || postcard::from_bytes::<GrowableContext>(data)) {
        let bytes = postcard::to_allocvec(&context).expect("a context has an encoding");
        assert_eq!(postcard::from_bytes::<GrowableContext>(&bytes), Ok(context));
    }
    if let Ok(vector) = crate::meter::within(bound, || postcard::from_bytes::<GrowableVersionVector>(data)) {
        let mut twice = vector.clone();
        let Ok(_) = twice.merge(&vector);
        assert!(twice == vector);
    }
}
