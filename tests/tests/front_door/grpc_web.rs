//! gRPC-Web, made by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use weir_proto::weir::products::v1 as pb;
use weir_tests::{Reply, web};

use crate::mesh;

async fn call(method: &str, content_type: &str, body: Vec<u8>) -> Reply {
    let path = format!("/weir.products.v1.ProductsService/{method}");
    let call = mesh().http().call(Method::POST, &path).header("content-type", content_type);
    call.header("x-grpc-web", "1").body(body).send().await
}

fn list() -> Vec<u8> {
    web::frame(&pb::ListProductsRequest { page_size: 2, ..Default::default() })
}

#[tokio::test]
async fn binary() {
    let reply = call("ListProducts", "application/grpc-web+proto", list()).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-weir-version")), (200, "v1"));
    assert!(reply.header("content-type").starts_with("application/grpc-web"));
    let (messages, trailers) = web::read::<pb::ListProductsResponse>(&reply.body);
    assert_eq!((messages.len(), messages[0].products.len()), (1, 2));
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn text() {
    let body = STANDARD.encode(list()).into_bytes();
    let reply = call("ListProducts", "application/grpc-web-text", body).await;
    assert!(reply.header("content-type").starts_with("application/grpc-web-text"));
    // Each piece is padded by itself.
    let mut bytes = Vec::new();
    for quad in reply.body.chunks(4) {
        bytes.extend(STANDARD.decode(quad).unwrap());
    }
    let (messages, trailers) = web::read::<pb::ListProductsResponse>(&bytes);
    assert_eq!((messages[0].products.len(), trailers["grpc-status"].as_str()), (2, "0"));
}

#[tokio::test]
async fn a_stream_of_answers() {
    let body = web::frame(&pb::ExportProductsRequest::default());
    let reply = call("ExportProducts", "application/grpc-web+proto", body).await;
    let (messages, trailers) = web::read::<pb::Product>(&reply.body);
    assert!(messages.len() > 1, "{}", messages.len());
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn an_error_has_its_status_where_clients_look() {
    let body = web::frame(&pb::GetProductRequest { product_id: "not an id".into() });
    let reply = call("GetProduct", "application/grpc-web+proto", body).await;
    assert_eq!(reply.status, 200);
    let status = match reply.header("grpc-status") {
        "" => web::read::<pb::Product>(&reply.body).1["grpc-status"].clone(),
        status => status.to_owned(),
    };
    assert_eq!(status, "3", "{}", reply.text());
}
