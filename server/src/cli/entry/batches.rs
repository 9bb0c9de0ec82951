//! Long lists in several requests.

/// Items in one request, in number and in bytes: far below what the server takes, and little
/// enough for a database that others write to as well.
const BATCH_ITEMS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Cuts `items` into lists for one request each, where `size` tells the bytes of one. An item
/// that is too large for any request has one to itself, so that the server says so.
pub(super) fn batches<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if !batch.is_empty() && (batch.len() == BATCH_ITEMS || bytes + more > BATCH_BYTES) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(sizes: Vec<usize>) -> Vec<usize> {
        batches(sizes, |size| *size).iter().map(Vec::len).collect()
    }

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        assert_eq!(lengths(vec![]), [0; 0]);
        assert_eq!(lengths(vec![1; 1001]), [500, 500, 1]);
        assert_eq!(lengths(vec![1 << 19; 5]), [2, 2, 1]);
        assert_eq!(lengths(vec![1, 1 << 30, 1]), [1, 1, 1]);
    }
}
