use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    text.parse::<Filter>().unwrap_err().to_string()
}

#[test]
fn and_binds_tighter_than_or_and_may_be_left_out() {
    let filter: Filter = "category=books price<2000 OR NOT (tag:new AND -sku=A-1)".parse().unwrap();
    assert_eq!(
        filter.to_string(),
        r#"category="books" AND price<2000 OR NOT (tag:"new" AND NOT sku="A-1")"#
    );
    assert_eq!(
        r#"name : "a \"b\" \\ c""#.parse::<Filter>().unwrap().to_string(),
        r#"name:"a \"b\" \\ c""#
    );
}

#[test]
fn errors_say_where_and_what_to_do() {
    assert!(error("colour=red").starts_with("at character 1: there is no field \"colour\""));
    assert!(error("price<cheap").starts_with("at character 7: \"cheap\" is not a whole number"));
    assert!(error("price:5").starts_with("at character 6: found `:`, expected <= >="));
    assert!(error("(sku=a").ends_with("found the end, expected `)`"));
    assert!(error("sku=a)").starts_with("at character 6: found ')'"));
    assert!(error("sku=AND").contains("double quotes"));
    assert!(error("name:\"x").contains("at character 8"));
    assert!(error("").contains("a field such as category"));
    assert!(error(&"(".repeat(900)).contains("more than 16"));
    assert!(error(&"NOT ".repeat(200)).contains("more than 16"));
    assert!(error(&"tag:a ".repeat(33)).contains("more than 32 terms"));
    assert!(error(&"x".repeat(1001)).contains("at most 1000"));
}

fn term() -> impl Strategy<Value = Term> {
    let fields = prop::sample::select(vec![
        Field::Category,
        Field::Sku,
        Field::Currency,
        Field::Name,
        Field::CreatedBy,
    ]);
    let operators = prop::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::AtMost,
        Operator::Greater,
        Operator::AtLeast,
    ]);
    let texts = prop::sample::select(vec![Text::Name, Text::Description]);
    let value = "[^\0]{0,12}";
    prop_oneof![
        (fields, any::<bool>(), value).prop_map(|(field, equal, value)| Term::Is {
            field,
            equal,
            value
        }),
        (operators, any::<i64>()).prop_map(|(operator, value)| Term::Price { operator, value }),
        (texts, value).prop_map(|(field, value)| Term::Contains { field, value }),
        value.prop_map(Term::Tag),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    term().prop_map(Filter::Term).prop_recursive(5, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    })
}

fn terms(filter: &Filter) -> usize {
    match filter {
        Filter::Or(parts) | Filter::And(parts) => parts.iter().map(terms).sum(),
        Filter::Not(inner) => terms(inner),
        Filter::Term(_) => 1,
    }
}

proptest! {
    #[test]
    fn a_printed_filter_reads_back_as_itself(filter in filter()) {
        let text = filter.to_string();
        prop_assume!(text.chars().count() <= MAX_LENGTH && terms(&filter) <= MAX_TERMS);
        prop_assert_eq!(text.parse::<Filter>(), Ok(filter), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"([a-z =!<>:()"\\-]|AND|OR|NOT|price|tag|name|\PC){0,60}"#) {
        let _ = text.parse::<Filter>();
    }
}
