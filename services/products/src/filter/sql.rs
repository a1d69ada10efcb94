//! Filter to SQL. What the client wrote is only ever bound, never spliced in.

use sqlx::{QueryBuilder, Sqlite};

use super::{Field, Filter, Operator, Term, Text};

impl Filter {
    /// Appends the condition, in parentheses where it needs them.
    pub(crate) fn push(&self, sql: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Or(parts) => push_all(parts, " OR ", sql),
            Self::And(parts) => push_all(parts, " AND ", sql),
            Self::Not(inner) => {
                sql.push("NOT (");
                inner.push(sql);
                sql.push(")");
            }
            Self::Term(term) => term.push(sql),
        }
    }
}

fn push_all(parts: &[Filter], separator: &str, sql: &mut QueryBuilder<Sqlite>) {
    sql.push("(");
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            sql.push(separator);
        }
        part.push(sql);
    }
    sql.push(")");
}

impl Term {
    fn push(&self, sql: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Is { field, equal, value } => {
                sql.push(match field {
                    Field::Category => "category",
                    Field::Sku => "sku",
                    Field::Currency => "currency",
                    Field::Name => "name",
                    Field::CreatedBy => "created_by",
                });
                sql.push(if *equal { " = " } else { " <> " });
                sql.push_bind(value.clone());
            }
            Self::Price { operator, value } => {
                sql.push(match operator {
                    Operator::Equal => "amount_minor = ",
                    Operator::NotEqual => "amount_minor <> ",
                    Operator::Less => "amount_minor < ",
                    Operator::AtMost => "amount_minor <= ",
                    Operator::Greater => "amount_minor > ",
                    Operator::AtLeast => "amount_minor >= ",
                });
                sql.push_bind(*value);
            }
            Self::Contains { field, value } => {
                sql.push(match field {
                    Text::Name => "instr(lower(name), lower(",
                    Text::Description => "instr(lower(description), lower(",
                });
                sql.push_bind(value.clone());
                sql.push(")) > 0");
            }
            Self::Tag(value) => {
                sql.push("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ");
                sql.push_bind(value.clone());
                sql.push(")");
            }
        }
    }
}
