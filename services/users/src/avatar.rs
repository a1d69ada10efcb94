//! A picture for each user, made from nothing but the id.

use crate::profile::UserId;

/// A mirrored 5 by 5 pattern in one colour, as a `data:` URL (RFC 2397).
///
/// The same id gives the same picture, in every version to come: clients cache.
pub fn data_url(id: &UserId) -> String {
    let bits = mix(id.as_bytes());
    let hue = bits % 360;
    let mut path = String::new();
    for (cell, shift) in (0..15u64).zip(16..) {
        if bits >> shift & 1 == 1 {
            let (column, row) = (cell / 5, cell % 5);
            path.push_str(&format!("M{column} {row}h1v1h-1z"));
            if column < 2 {
                path.push_str(&format!("M{} {row}h1v1h-1z", 4 - column));
            }
        }
    }
    // `#`, `%`, `<` and `>` are escaped in a URL; nothing else here needs it.
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='-1 -1 7 7'%3E\
         %3Cpath fill='hsl({hue} 55%25 45%25)' d='{path}'/%3E%3C/svg%3E"
    )
    .replace(' ', "%20")
}

/// FNV-1a, 64 bits, and a finisher: ids of one moment share their first bytes.
fn mix(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_the_same_for_an_id_and_differs_between_neighbours() {
        let one: UserId = "01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1b".parse().unwrap();
        let two: UserId = "01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1c".parse().unwrap();
        assert_eq!(data_url(&one), data_url(&one));
        assert_ne!(data_url(&one), data_url(&two));
        assert!(data_url(&one).starts_with("data:image/svg+xml,%3Csvg"));
        assert!(!data_url(&one).contains([' ', '<', '#']));
    }
}
