//! A dozen products to try the mesh with.

use crate::product::{Draft, FieldError, Price, Tag};

/// Who has created them.
pub const CREATED_BY: &str = "weir-seed";

type Row = (&'static str, &'static str, &'static str, i64, &'static str, &'static [&'static str]);

/// SKU, name, description, price in EUR cents, category, tags.
const ROWS: [Row; 12] = [
    (
        "BOOK-RUST",
        "Rust in Practice",
        "Ownership, traits and async by example.",
        3990,
        "books",
        &["rust", "programming"],
    ),
    (
        "BOOK-MESH",
        "Meshes Without Tears",
        "Service meshes for small teams.",
        3490,
        "books",
        &["networking"],
    ),
    (
        "BOOK-SQL",
        "Small Databases",
        "What SQLite does well, and when to move on.",
        2990,
        "books",
        &["databases"],
    ),
    (
        "BOOK-RIVER",
        "The River Keepers",
        "A novel about weirs, mills and the people beside them.",
        1490,
        "books",
        &["fiction"],
    ),
    ("MUG-BLUE", "Blue Mug", "Stoneware, 350 ml, dishwasher safe.", 1290, "kitchen", &["ceramics"]),
    (
        "MUG-TRAVEL",
        "Travel Mug",
        "Steel, keeps tea hot for six hours.",
        2490,
        "kitchen",
        &["steel", "travel"],
    ),
    ("KETTLE-1L", "Whistling Kettle", "One litre, for every hob.", 3990, "kitchen", &["steel"]),
    ("LAMP-DESK", "Desk Lamp", "Dimmable, warm to cold white.", 4990, "office", &["lighting"]),
    ("PEN-FOUNTAIN", "Fountain Pen", "Medium nib, with converter.", 2790, "office", &["writing"]),
    (
        "NOTE-A5",
        "Dotted Notebook",
        "A5, 192 pages, lies flat.",
        1190,
        "office",
        &["writing", "paper"],
    ),
    (
        "TENT-2P",
        "Two-Person Tent",
        "1.9 kg, stands in wind.",
        18900,
        "outdoor",
        &["travel", "camping"],
    ),
    (
        "TORCH-HEAD",
        "Head Torch",
        "400 lumens, charges by USB-C.",
        3490,
        "outdoor",
        &["lighting", "camping"],
    ),
];

/// The products to begin with.
///
/// # Errors
/// None, as long as the table above keeps to the rules of products.
pub fn drafts() -> Result<Vec<Draft>, FieldError> {
    ROWS.iter().map(draft).collect()
}

fn draft(&(sku, name, description, amount, category, tags): &Row) -> Result<Draft, FieldError> {
    let tags: Vec<_> =
        tags.iter().map(|tag| Tag::try_from((*tag).to_owned())).collect::<Result<_, _>>()?;
    Ok(Draft {
        name: name.to_owned().try_into()?,
        description: description.to_owned().try_into()?,
        sku: sku.to_owned().try_into()?,
        price: Price { currency: "EUR".to_owned().try_into()?, amount: amount.try_into()? },
        category: category.to_owned().try_into()?,
        tags: tags.try_into()?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_keeps_to_the_rules() {
        assert_eq!(super::drafts().unwrap().len(), 12);
    }
}
