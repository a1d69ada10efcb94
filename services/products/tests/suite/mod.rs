//! What holds on every database.

mod replicas;

use std::collections::HashSet;

use prost_types::FieldMask;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weir_mesh::server::{Running, details};
use weir_products::Args;
use weir_proto::google::rpc;
use weir_proto::weir::products::v1::products_service_client::ProductsServiceClient;
use weir_proto::weir::products::v1::*;

use crate::support::data::Data;
use crate::support::{self, Auth};

type Client = ProductsServiceClient<Channel>;

struct Fixture {
    auth: Auth,
    data: Data,
}

impl Fixture {
    async fn new() -> Self {
        Self { auth: Auth::start().await, data: crate::data() }
    }

    async fn serve(&self, version: &str, seed: bool) -> (Running, Client) {
        let common = self.data.common(version, &self.auth.url());
        let running = weir_products::start(&Args { common, seed }).await.unwrap();
        let client = Client::new(support::channel(&running.address().to_string()).await);
        (running, client)
    }

    fn write<T>(&self, message: T) -> Request<T> {
        self.auth.request("ada", message)
    }
}

fn draft(sku: &str, price: i64) -> CreateProductRequest {
    CreateProductRequest {
        name: format!("Product {sku}"),
        description: "Good.".into(),
        sku: sku.into(),
        price: Some(Price { currency_code: "EUR".into(), amount_minor: price }),
        category: "books".into(),
        tags: vec!["new".into()],
    }
}

fn wrong_fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad: Vec<rpc::BadRequest> = details(status, "google.rpc.BadRequest");
    bad.into_iter().flat_map(|b| b.field_violations).map(|v| v.field).collect()
}

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.into()] })
}

#[tokio::test]
async fn what_it_stores_is_its_owner_s_alone_to_read() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;
    client.create_product(fixture.write(draft("a", 100))).await.unwrap();
    if fixture.data.url().is_none() {
        support::assert_private(fixture.data.directory(), "products.db");
    }
}

#[tokio::test]
async fn a_product_is_created_read_changed_and_deleted() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;

    let made = client.create_product(fixture.write(draft("A-1", 1999))).await.unwrap().into_inner();
    assert_eq!((made.created_by.as_str(), made.sku.as_str()), ("ada", "A-1"));
    let got = GetProductRequest { product_id: made.product_id.clone() };
    assert_eq!(client.get_product(got.clone()).await.unwrap().into_inner(), made);
    let again = client.create_product(fixture.write(draft("A-1", 5))).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let change = Product { name: "Renamed".into(), tags: Vec::new(), ..made.clone() };
    let update = |mask| UpdateProductRequest { product: Some(change.clone()), update_mask: mask };
    let changed =
        client.update_product(fixture.write(update(mask("tags")))).await.unwrap().into_inner();
    assert_eq!((changed.name.as_str(), changed.tags.len()), (made.name.as_str(), 0));
    assert_ne!(changed.etag, made.etag);

    let stale = client.update_product(fixture.write(update(mask("name")))).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let delete = |etag: &str| DeleteProductRequest {
        product_id: made.product_id.clone(),
        etag: etag.into(),
    };
    for etag in [made.etag.as_str(), "nonsense"] {
        let stale = client.delete_product(fixture.write(delete(etag))).await.unwrap_err();
        assert_eq!(stale.code(), Code::Aborted);
    }
    client.delete_product(fixture.write(delete(&changed.etag))).await.unwrap();
    assert_eq!(client.get_product(got).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn only_users_write() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v2", false).await;
    let product = Some(Product::default());
    let refused = [
        client.create_product(draft("A", 1)).await.unwrap_err(),
        client
            .update_product(UpdateProductRequest { product, update_mask: None })
            .await
            .unwrap_err(),
        client.delete_product(DeleteProductRequest::default()).await.unwrap_err(),
        client.rate_product(RateProductRequest::default()).await.unwrap_err(),
        client.import_products(tokio_stream::iter([])).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    assert!(client.list_products(ListProductsRequest::default()).await.is_ok());
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;
    let wrong = CreateProductRequest {
        name: " ".into(),
        sku: "a b".into(),
        price: Some(Price { currency_code: "eur".into(), amount_minor: -1 }),
        category: String::new(),
        tags: vec!["ok".into(), "NO".into()],
        ..draft("A", 1)
    };
    let status = client.create_product(fixture.write(wrong)).await.unwrap_err();
    let expected =
        ["name", "sku", "price.currencyCode", "price.amountMinor", "category", "tags[1]"];
    assert_eq!(wrong_fields(&status), expected);

    let wrong = ListProductsRequest {
        page_size: 1001,
        filter: "colour=red".into(),
        order_by: "rating".into(),
        page_token: "x".into(),
    };
    let status = client.list_products(wrong).await.unwrap_err();
    assert_eq!(wrong_fields(&status), ["pageSize", "filter", "orderBy"]);
    let status = client
        .list_products(ListProductsRequest { page_token: "x".into(), ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(wrong_fields(&status), ["pageToken"]);

    let made = client.create_product(fixture.write(draft("A", 1))).await.unwrap().into_inner();
    let product = Product { sku: "B".into(), ..made.clone() };
    for (update_mask, field) in [(mask("etag"), "updateMask"), (None, "product.sku")] {
        let update = UpdateProductRequest { product: Some(product.clone()), update_mask };
        let status = client.update_product(fixture.write(update)).await.unwrap_err();
        assert_eq!(wrong_fields(&status), [field]);
    }
    let batch = BatchGetProductsRequest { product_ids: vec![made.product_id, "x".into()] };
    assert_eq!(
        wrong_fields(&client.batch_get_products(batch).await.unwrap_err()),
        ["productIds[1]"]
    );
}

async fn walk(
    client: &mut Client,
    order_by: &str,
    mut between: impl AsyncFnMut(usize),
) -> Vec<Product> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    for page in 0.. {
        let list = ListProductsRequest {
            page_size: 7,
            page_token,
            filter: "category=books".into(),
            order_by: order_by.into(),
        };
        let answer = client.list_products(list).await.unwrap().into_inner();
        assert!(answer.products.len() <= 7);
        all.extend(answer.products);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
        between(page).await;
    }
    all
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_products_are_added() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;
    let mut before = HashSet::new();
    for i in 0..40 {
        let request = fixture.write(draft(&format!("old-{i}"), i % 5));
        before.insert(client.create_product(request).await.unwrap().into_inner().product_id);
    }
    for (n, order_by) in
        ["", "created desc", "price", "price desc", "name", "name desc"].iter().enumerate()
    {
        let mut writer = client.clone();
        let fixture = &fixture;
        let all = walk(&mut client, order_by, async |page| {
            let request = fixture.write(draft(&format!("new-{n}-{page}"), 2));
            writer.create_product(request).await.unwrap();
        })
        .await;
        let ids: HashSet<_> = all.iter().map(|p| p.product_id.clone()).collect();
        assert_eq!(ids.len(), all.len(), "{order_by}: something came twice");
        assert!(before.is_subset(&ids), "{order_by}: something was left out");
        let price = |p: &Product| p.price.as_ref().unwrap().amount_minor;
        match *order_by {
            "price" => assert!(all.is_sorted_by_key(price)),
            "price desc" => assert!(all.is_sorted_by_key(|p| -price(p))),
            "name" => assert!(all.is_sorted_by_key(|p| p.name.to_lowercase())),
            _ => (),
        }
    }
}

#[tokio::test]
async fn a_filter_selects_what_it_says() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", true).await;
    for (filter, expected) in [
        (r#"category=books AND price<3900 AND name:"MESHES""#, vec!["BOOK-MESH"]),
        ("tag:lighting -category=office", vec!["TORCH-HEAD"]),
        ("sku=MUG-BLUE OR sku=KETTLE-1L", vec!["MUG-BLUE", "KETTLE-1L"]),
        ("NOT (price>=1500 OR category=office)", vec!["BOOK-RIVER", "MUG-BLUE"]),
        (r#"name:"' OR 1=1 --""#, vec![]),
        ("tag:light", vec![]),
    ] {
        let list = ListProductsRequest { filter: filter.into(), ..Default::default() };
        let products = client.list_products(list).await.unwrap().into_inner().products;
        assert_eq!(
            products.iter().map(|p| p.sku.as_str()).collect::<Vec<_>>(),
            expected,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn processes_that_start_at_once_seed_once() {
    let fixture = Fixture::new().await;
    let starts = (0..6).map(|_| fixture.serve("v1", true));
    let mut all = futures_util::future::join_all(starts).await;
    let client = &mut all[0].1;
    let products =
        client.list_products(ListProductsRequest::default()).await.unwrap().into_inner().products;
    assert_eq!(products.len(), 12);
    let delete =
        DeleteProductRequest { product_id: products[0].product_id.clone(), etag: String::new() };
    client.delete_product(fixture.write(delete)).await.unwrap();
    let (_again, mut client) = fixture.serve("v1", true).await;
    let products =
        client.list_products(ListProductsRequest::default()).await.unwrap().into_inner().products;
    assert_eq!(products.len(), 11, "what was deleted stays deleted");
}

#[tokio::test]
async fn ratings_come_with_v2_and_leave_v1_and_the_etag_as_they_were() {
    let fixture = Fixture::new().await;
    let (_one, mut v1) = fixture.serve("v1", false).await;
    let (_two, mut v2) = fixture.serve("v2", false).await;
    let made = v1.create_product(fixture.write(draft("A", 1))).await.unwrap().into_inner();
    let rate = |stars| RateProductRequest { product_id: made.product_id.clone(), stars };
    let refused = v1.rate_product(fixture.write(rate(5))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("v2"));
    let wrong = v2.rate_product(fixture.write(rate(6))).await.unwrap_err();
    assert_eq!(wrong_fields(&wrong), ["stars"]);

    v2.rate_product(fixture.write(rate(1))).await.unwrap();
    v2.rate_product(fixture.auth.request("bob", rate(5))).await.unwrap();
    let rated = v2.rate_product(fixture.write(rate(2))).await.unwrap().into_inner();
    assert_eq!(rated.rating, Some(Rating { average: 3.5, count: 2 }));
    assert_eq!(rated.etag, made.etag);
    let get = GetProductRequest { product_id: made.product_id.clone() };
    assert_eq!(v1.get_product(get).await.unwrap().into_inner(), made);
}

#[tokio::test]
async fn streams_import_export_and_look_up() {
    let fixture = Fixture::new().await;
    let (running, mut client) = fixture.serve("v1", false).await;
    let items = (0..450).map(|i| {
        let sku = if i == 449 { "S-0".to_owned() } else { format!("S-{i}") };
        let price = if i == 7 { -1 } else { i };
        ImportProductsRequest { product: Some(draft(&sku, price)) }
    });
    let items: Vec<_> = items.collect();
    let import = fixture.write(tokio_stream::iter(items));
    let report = client.import_products(import).await.unwrap().into_inner();
    assert_eq!((report.created, report.skipped, report.failed), (448, 1, 1));
    assert_eq!(report.errors[0].index, 7);
    assert!(report.errors[0].description.starts_with("price.amountMinor: -1"));

    let export = ExportProductsRequest { filter: "price>=0".into() };
    let mut stream = client.export_products(export).await.unwrap().into_inner();
    let mut exported = Vec::new();
    while let Some(product) = stream.message().await.unwrap() {
        exported.push(product);
    }
    let ids: HashSet<_> = exported.iter().map(|p| &p.product_id).collect();
    assert_eq!((exported.len(), ids.len()), (448, 448));

    let (send, requests) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = client.lookup_products(stream).await.unwrap().into_inner();
    let nobody = "018f0000-0000-7000-8000-000000000000";
    for id in [&exported[3].product_id, nobody, &exported[0].product_id] {
        send.send(LookupProductsRequest { product_id: id.to_owned() }).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.product_id, id);
        assert_eq!(answer.product.is_some(), id != nobody);
    }
    // An open stream must not keep the process from stopping.
    let stopped = tokio::spawn(running.stop());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
    stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_page_of_large_products_fits_into_one_message() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;
    let large = |i| CreateProductRequest {
        description: "\u{1F980}".repeat(4000),
        ..draft(&format!("L-{i}"), 1)
    };
    let items: Vec<_> =
        (0..300).map(|i| ImportProductsRequest { product: Some(large(i)) }).collect();
    client.import_products(fixture.write(tokio_stream::iter(items))).await.unwrap();
    let (mut all, mut page_token) = (0, String::new());
    loop {
        let list = ListProductsRequest { page_size: 1000, page_token, ..Default::default() };
        let page = client.list_products(list).await.unwrap().into_inner();
        all += page.products.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(all, 300);
}

/// PostgreSQL has an order of text for each database, SQLite has none.
#[tokio::test]
async fn names_are_ordered_and_searched_by_their_bytes_but_for_ascii_case() {
    let fixture = Fixture::new().await;
    let (_running, mut client) = fixture.serve("v1", false).await;
    for (i, name) in ["cherry", "\u{c4}rger", "Banana", "apple", "_x"].iter().enumerate() {
        let product = CreateProductRequest { name: (*name).into(), ..draft(&format!("N-{i}"), 1) };
        client.create_product(fixture.write(product)).await.unwrap();
    }
    let mut names = async |filter: &str, order_by: &str| {
        let list = ListProductsRequest {
            filter: filter.into(),
            order_by: order_by.into(),
            ..Default::default()
        };
        let page = client.list_products(list).await.unwrap().into_inner();
        page.products.into_iter().map(|product| product.name).collect::<Vec<_>>()
    };
    assert_eq!(names("", "name").await, ["_x", "apple", "Banana", "cherry", "\u{c4}rger"]);
    assert_eq!(names("name:BAN", "").await, ["Banana"]);
    assert_eq!(names("name:\u{c4}RGER", "").await, ["\u{c4}rger"]);
    assert!(names("name:\u{e4}rger", "").await.is_empty());
}
