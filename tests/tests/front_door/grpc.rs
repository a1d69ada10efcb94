//! gRPC clients at the gateway: calls of all four kinds, trailers, details.

use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weir_proto::google::rpc;
use weir_proto::weir::products::v1 as pb;
use weir_proto::weir::products::v1::products_service_client::ProductsServiceClient;

use crate::{account, mesh, unique};

/// A client of products.
pub async fn products() -> ProductsServiceClient<Channel> {
    ProductsServiceClient::new(mesh().channel().await)
}

/// A request by the user whom tests share.
pub async fn by_user<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {}", account().await.access_token);
    request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
    request
}

fn draft(sku: &str, category: &str) -> pb::CreateProductRequest {
    pb::CreateProductRequest {
        name: "A product".into(),
        sku: sku.into(),
        price: Some(pb::Price { currency_code: "EUR".into(), amount_minor: 100 }),
        category: category.into(),
        ..Default::default()
    }
}

fn details(status: &Status) -> rpc::BadRequest {
    let details = rpc::Status::decode(status.details()).unwrap();
    let bad = details.details.iter().find(|any| any.type_url.ends_with("google.rpc.BadRequest"));
    rpc::BadRequest::decode(bad.expect("a BadRequest").value.as_slice()).unwrap()
}

#[tokio::test]
async fn a_unary_call_and_its_version() {
    let request = pb::ListProductsRequest { page_size: 1, ..Default::default() };
    let answer = products().await.list_products(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-weir-version").unwrap(), "v1");
    assert_eq!(answer.into_inner().products.len(), 1);
}

#[tokio::test]
async fn errors_keep_code_message_and_details() {
    let request = by_user(draft("not a sku", "c")).await;
    let status = products().await.create_product(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(details(&status).field_violations[0].field, "sku");

    let missing = "00000000-0000-4000-8000-000000000000".to_owned();
    let request = pb::GetProductRequest { product_id: missing.clone() };
    let status = products().await.get_product(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&missing), "{status:?}");
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented() {
    let mut client = tonic::client::Grpc::new(mesh().channel().await);
    for path in ["/weir.products.v1.ProductsService/Nothing", "/no.such.Service/Method"] {
        client.ready().await.unwrap();
        let codec = tonic_codec::Empty;
        let path = http::uri::PathAndQuery::from_static(path);
        let status = client.unary(Request::new(()), path.clone(), codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
}

/// A codec of empty messages.
mod tonic_codec {
    use prost::bytes::Buf as _;
    use tonic::Status;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

    pub struct Empty;

    impl Codec for Empty {
        type Encode = ();
        type Decode = ();
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            Self
        }

        fn decoder(&mut self) -> Self {
            Self
        }
    }

    impl Encoder for Empty {
        type Item = ();
        type Error = Status;

        fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
            Ok(())
        }
    }

    impl Decoder for Empty {
        type Item = ();
        type Error = Status;

        fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
            buffer.advance(buffer.remaining());
            Ok(Some(()))
        }
    }
}

#[tokio::test]
async fn streams_of_requests_and_of_answers() {
    let category = unique("c-");
    let drafts: Vec<_> = (0..500).map(|i| draft(&unique(&format!("S{i}-")), &category)).collect();
    let mut requests: Vec<_> =
        drafts.into_iter().map(|p| pb::ImportProductsRequest { product: Some(p) }).collect();
    requests[7].product = Some(draft("not a sku", &category));
    let request = by_user(tokio_stream::iter(requests)).await;
    let answer = products().await.import_products(request).await.unwrap().into_inner();
    assert_eq!((answer.created, answer.skipped, answer.failed), (499, 0, 1));
    assert_eq!(answer.errors[0].index, 7);

    let request = pb::ExportProductsRequest { filter: format!("category={category}") };
    let mut stream = products().await.export_products(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(product) = stream.message().await.unwrap() {
        assert_eq!(product.category, category);
        count += 1;
    }
    assert_eq!(count, 499);
    assert!(stream.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn a_stream_in_both_directions_answers_while_it_is_open() {
    let (sender, receiver) = mpsc::channel(1);
    let lookup = |id: &str| pb::LookupProductsRequest { product_id: id.to_owned() };
    let ids: Vec<String> = (0..20).map(|i| format!("00000000-0000-4000-8000-{i:012}")).collect();
    sender.send(lookup(&ids[0])).await.unwrap();
    let mut client = products().await;
    let mut answers =
        client.lookup_products(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    // Each question is sent only after the answer to the one before.
    for (i, id) in ids.iter().enumerate() {
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!((&answer.product_id, answer.product.is_none()), (id, true));
        if let Some(next) = ids.get(i + 1) {
            sender.send(lookup(next)).await.unwrap();
        }
    }
    drop(sender);
    assert!(answers.next().await.is_none());
}
