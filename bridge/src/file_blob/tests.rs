use super::*;
use prost::Message as _;

fn key(text: &str) -> HashKey {
    HashKey::parse(text).unwrap()
}

/// Computed apart from this program, and agreeing with what real clients send.
#[test]
fn keys_are_those_of_real_clients() {
    for (content, expected) in [
        (&b""[..], "6ed756eacff27326411ce890c828745034b70725d434d0fe940561f39f712bfd"),
        (b"abc", "ea24e5718b5a29273b8abd4c698295feaa4806e0b2196f5153ff48cc255db8aa"),
        (b"hello\n", "b89aa0f28352503ccd041ef968305289e551b6aedecee5bf14a6de41a46df230"),
        (&vec![0; CHUNK_BYTES], "0abbcb88f737dc97622267ba29f9786df3965639337125763de530dd2e5118c0"),
    ] {
        assert_eq!(key_of_file(content), key(expected), "{} bytes", content.len());
    }
    let long = vec![0; CHUNK_BYTES + 1];
    let chunks = [
        key("afb39e3759d069d4d3612f707bd42ffa7c34c52eac82cfe21f6945c54a1886dc"),
        key("3f33ea64acd2c3731abb399196d4f9ce3d4c7583cbd29d8d678db938fa0bbf67"),
    ];
    assert_eq!(key_of_chunk(0, &long[..CHUNK_BYTES]), chunks[0]);
    assert_eq!(key_of_chunk(CHUNK_BYTES as u64, &[0]), chunks[1]);
    let meta = key("49d6bd5f1ecfa3be852b351dda7160d3338cb84b154e5695cf80859936fccb06");
    assert_eq!(key_of_meta(long.len() as u64, &chunks), meta);
    for step in [1 << 20, 999_999, long.len()] {
        let mut hasher = ChunkHasher::new(long.len() as u64);
        long.chunks(step).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish().unwrap(), chunks, "in pieces of {step}");
    }
    let mut half = ChunkHasher::new(long.len() as u64);
    half.update(&long[..CHUNK_BYTES]);
    assert_eq!(half.finish(), None);
}

#[test]
fn what_we_encode_has_the_key_we_say() {
    let file = key_of_file(b"abc");
    for blob in [
        Blob::File(Bytes::new()),
        Blob::File(Bytes::from_static(b"abc")),
        Blob::Chunk { offset: 0, content: Bytes::from_static(b"x") },
        Blob::Meta { size: CHUNK_BYTES as u64 + 1, chunks: vec![file, file] },
        Blob::Reference { size: 3, file },
    ] {
        let encoded = blob.clone().into_message().encode_to_vec();
        assert_eq!(HashKey::of_encoded(&encoded), blob.key(), "{blob:?}");
        let message = FileBlob::decode(&encoded[..]).unwrap();
        let announced = blob.key().to_string();
        assert_eq!(verify(message, Some(&encoded), Some(&announced)).unwrap(), (blob.key(), blob));
    }
}

#[test]
fn a_field_of_the_future_is_part_of_the_key() {
    let mut raw = Blob::File(Bytes::from_static(b"abc")).into_message().encode_to_vec();
    raw.extend_from_slice(&[0xf0, 0x01, 7]);
    let message = FileBlob::decode(&raw[..]).unwrap();
    let as_sent = HashKey::of_encoded(&raw).to_string();
    assert_eq!(verify(message.clone(), Some(&raw), Some(&as_sent)).unwrap().0.to_string(), as_sent);
    assert_eq!(verify(message.clone(), Some(&raw), None).unwrap().0.to_string(), as_sent);
    // A client that hashed before it added the field.
    let plain = key_of_file(b"abc").to_string();
    assert_eq!(verify(message, Some(&raw), Some(&plain)).unwrap().0.to_string(), plain);
}

#[test]
fn nothing_is_taken_under_a_key_it_does_not_have() {
    let message = Blob::File(Bytes::from_static(b"abc")).into_message();
    let raw = message.encode_to_vec();
    for announced in [key_of_file(b"abd").to_string(), key_of_file(b"abc").to_string().to_uppercase(), String::new()] {
        let refused = verify(message.clone(), Some(&raw), Some(&announced)).unwrap_err();
        assert!(matches!(refused, BlobError::Mismatch { .. }), "{announced}");
    }
}

#[test]
fn blobs_that_contradict_themselves_are_refused() {
    let file = Blob::File(Bytes::from_static(b"abc")).into_message();
    let chunk = Blob::Chunk { offset: 0, content: Bytes::from_static(b"x") }.into_message();
    let keys = vec![key_of_file(b"a"); 2];
    let meta = Blob::Meta { size: CHUNK_BYTES as u64 + 1, chunks: keys.clone() }.into_message();
    let reference = Blob::Reference { size: 1, file: keys[0] }.into_message();
    let big = Bytes::from(vec![0; CHUNK_BYTES + 1]);
    for bad in [
        FileBlob { file_size: None, ..file.clone() },
        FileBlob { file_size: Some(-1), ..file.clone() },
        FileBlob { file_size: Some(4), ..file.clone() },
        FileBlob { content: None, ..file.clone() },
        FileBlob { offset: Some(0), ..file.clone() },
        FileBlob { hash_key: meta.hash_key.clone(), ..file.clone() },
        FileBlob { file_size: Some(big.len() as i64), content: Some(big), ..file.clone() },
        FileBlob { offset: None, ..chunk.clone() },
        FileBlob { offset: Some(-1), ..chunk.clone() },
        FileBlob { content: None, ..chunk },
        FileBlob { hash_key: vec![keys[0].to_string()], ..meta.clone() },
        FileBlob { file_size: Some(3), ..meta.clone() },
        FileBlob { hash_key: vec!["x".into(), "y".into()], ..meta.clone() },
        FileBlob { content: Some(Bytes::new()), ..meta },
        FileBlob { hash_key: vec![], ..reference.clone() },
        FileBlob { offset: Some(1), ..reference },
        FileBlob { blob_type: 0, ..file.clone() },
        FileBlob { blob_type: 4, ..file },
    ] {
        assert!(matches!(Blob::try_from(bad.clone()), Err(BlobError::Invalid(_))), "{bad:?}");
    }
}
