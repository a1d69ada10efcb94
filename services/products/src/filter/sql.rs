//! Filter to SQL. What the client wrote is only ever bound, never spliced in.

use weir_mesh::server::database::Query;

use super::{Field, Filter, Operator, Term, Text};

impl Filter {
    /// Appends the condition, in parentheses where it needs them.
    pub(crate) fn push(&self, query: Query) -> Query {
        match self {
            Self::Or(parts) => push_all(parts, " OR ", query),
            Self::And(parts) => push_all(parts, " AND ", query),
            Self::Not(inner) => inner.push(query.sql("NOT (")).sql(")"),
            Self::Term(term) => term.push(query),
        }
    }
}

fn push_all(parts: &[Filter], separator: &'static str, query: Query) -> Query {
    let mut query = query.sql("(");
    for (i, part) in parts.iter().enumerate() {
        query = part.push(if i > 0 { query.sql(separator) } else { query });
    }
    query.sql(")")
}

impl Term {
    fn push(&self, query: Query) -> Query {
        match self {
            Self::Is { field, equal, value } => query
                .sql(match field {
                    Field::Category => "category",
                    Field::Sku => "sku",
                    Field::Currency => "currency",
                    Field::Name => "name",
                    Field::CreatedBy => "created_by",
                })
                .sql(if *equal { " = " } else { " <> " })
                .value(value.as_str()),
            Self::Price { operator, value } => query
                .sql(match operator {
                    Operator::Equal => "amount_minor = ",
                    Operator::NotEqual => "amount_minor <> ",
                    Operator::Less => "amount_minor < ",
                    Operator::AtMost => "amount_minor <= ",
                    Operator::Greater => "amount_minor > ",
                    Operator::AtLeast => "amount_minor >= ",
                })
                .value(*value),
            Self::Contains { field, value } => query
                .sqlite("instr(lower(")
                .postgres("strpos(lower(")
                .sql(match field {
                    Text::Name => "name",
                    Text::Description => "description",
                })
                .sql("), lower(")
                .value(value.as_str())
                // Else PostgreSQL would take the database's idea of small letters.
                .postgres(" COLLATE \"C\"")
                .sql(")) > 0"),
            Self::Tag(value) => query
                .sqlite("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ")
                .postgres("jsonb_exists(CAST(tags AS jsonb), ")
                .value(value.as_str())
                .sql(")"),
        }
    }
}
