//! Several processes on one database.

use std::collections::HashSet;

use tonic::{Code, Status};
use weir_proto::weir::products::v1::*;

use super::{Fixture, draft};

/// Two processes write to one database at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_replicas_do_at_once_is_as_if_it_came_one_after_the_other() {
    let fixture = Fixture::new().await;
    let ((_one, one), (_two, two)) =
        tokio::join!(fixture.serve("v2", false), fixture.serve("v2", false));
    let both = [one, two];
    let client = |n: usize| both[n % 2].clone();
    let made = client(0).create_product(fixture.write(draft("A", 1))).await.unwrap().into_inner();

    // A user's ratings count once, however they come.
    let ratings = (0..24).map(|n| {
        let rate =
            RateProductRequest { product_id: made.product_id.clone(), stars: 1 + n as u32 % 5 };
        let user = ["ada", "bob", "eve"][n % 3];
        let (mut client, request) = (client(n), fixture.auth.request(user, rate));
        async move { client.rate_product(request).await }
    });
    for rated in futures_util::future::join_all(ratings).await {
        rated.unwrap();
    }
    for user in ["ada", "bob", "eve"] {
        let rate = RateProductRequest { product_id: made.product_id.clone(), stars: 3 };
        client(1).rate_product(fixture.auth.request(user, rate)).await.unwrap();
    }
    let get = GetProductRequest { product_id: made.product_id.clone() };
    let seen = client(0).get_product(get).await.unwrap().into_inner();
    assert_eq!(seen.rating, Some(Rating { average: 3.0, count: 3 }));

    // Of many who create one SKU, one does.
    let creates = (0..12).map(|n| {
        let (mut client, request) = (client(n), fixture.write(draft("B", 1)));
        async move { client.create_product(request).await }
    });
    let created = futures_util::future::join_all(creates).await;
    assert_eq!(created.iter().filter(|end| end.is_ok()).count(), 1);
}

/// Whoever goes on from the last product that they have seen misses none, though
/// some are committed one by one and some in large batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_follows_writers_of_two_replicas_misses_nothing() {
    const EACH: usize = 400;
    let fixture = Fixture::new().await;
    let ((_one, one), (_two, mut two)) =
        tokio::join!(fixture.serve("v1", false), fixture.serve("v1", false));
    let items: Vec<_> = (0..EACH)
        .map(|n| ImportProductsRequest { product: Some(draft(&format!("I-{n}"), 1)) })
        .collect();
    let import = fixture.write(tokio_stream::iter(items));
    let batches = tokio::spawn(async move { two.import_products(import).await.map(drop) });
    let requests: Vec<_> = (0..EACH).map(|n| fixture.write(draft(&format!("C-{n}"), 1))).collect();
    let mut client = one.clone();
    let single = tokio::spawn(async move {
        for request in requests {
            client.create_product(request).await?;
        }
        Ok::<_, Status>(())
    });
    let (mut seen, mut page_token) = (HashSet::new(), String::new());
    let mut client = one.clone();
    let mut page = async |page_size, page_token: &String| {
        let page_token = page_token.clone();
        let list = ListProductsRequest { page_size, page_token, ..Default::default() };
        client.list_products(list).await.unwrap().into_inner()
    };
    loop {
        let ended = batches.is_finished() && single.is_finished();
        let there = page(1000, &page_token).await.products;
        if ended {
            seen.extend(there.into_iter().map(|product| product.sku));
            break;
        }
        // All but the last, as only then a page has a token: close behind the writers.
        let Some(size) = there.len().checked_sub(1).filter(|size| *size > 0) else { continue };
        let page = page(size as u32, &page_token).await;
        seen.extend(page.products.into_iter().map(|product| product.sku));
        page_token = page.next_page_token;
    }
    batches.await.unwrap().unwrap();
    single.await.unwrap().unwrap();
    assert_eq!(seen.len(), 2 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_updates_with_one_etag_exactly_one_wins() {
    let fixture = Fixture::new().await;
    let (_one, first) = fixture.serve("v1", false).await;
    let (_two, second) = fixture.serve("v2", false).await;
    let mut client = first.clone();
    let made = client.create_product(fixture.write(draft("A", 0))).await.unwrap().into_inner();
    let mut etag = made.etag;
    for round in 0..10 {
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                let mut client = if i % 2 == 0 { first.clone() } else { second.clone() };
                let product = Product {
                    product_id: made.product_id.clone(),
                    price: Some(Price {
                        currency_code: "EUR".into(),
                        amount_minor: round * 100 + i,
                    }),
                    etag: etag.clone(),
                    ..Default::default()
                };
                let update = UpdateProductRequest { product: Some(product), update_mask: None };
                let request = fixture.write(update);
                tokio::spawn(async move { client.update_product(request).await })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(product) => won.push(product.into_inner()),
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        let now = client
            .get_product(GetProductRequest { product_id: made.product_id.clone() })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(now, won[0]);
        etag = now.etag;
    }
}
