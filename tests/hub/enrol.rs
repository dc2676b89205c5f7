//! How a device is enrolled over the network: what it asks the hub, and what the hub has for it then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tidegate::bundle::document::{Document, DocumentKind};
use tidegate::bundle::enrolment::{Enrolment, Labels, Request};
use tidegate::bundle::root::{Role, RoleKeys, RootDocument, RootDraft};
use tidegate::hub::{Config, Hub};
use tidegate::ids::{DeviceId, Digest};
use tidegate::keys::{SigningKey, random, sha256};
use tidegate::units::Span;
use tidegate::upload::{self, Undelivered, deliver};

use crate::http::{put, raw, refusal, status, told};
use crate::scene::{Premises, Running, device, hub_key, key};

fn request(key: &SigningKey, site: &str) -> Document {
    let labels = [("site".to_owned(), site.to_owned())].into();
    Request::sign(key, labels, "a board").expect("a sound request")
}

fn id(key: &SigningKey) -> DeviceId {
    DeviceId::from(key.public().id())
}

/// A hub that keeps requests; the folder.
fn keeps(premises: &Premises) -> (Config, PathBuf) {
    let folder = premises.path("requests");
    fs::create_dir(&folder).expect("made");
    (Config { requests: Some(folder.clone()), body_timeout: Span::millis(300), ..premises.config() }, folder)
}

fn files(folder: &PathBuf) -> Vec<String> {
    let names = fs::read_dir(folder).expect("there").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_request_is_kept_for_a_person_the_last_of_a_device_and_what_is_none_is_refused_by_name() {
    let premises = Premises::new();
    let (config, folder) = keeps(&premises);
    let hub = Running::start(config).await;
    let send = async |body: &[u8]| raw(hub.address, &put("/v1/requests", "", body)).await;
    let (stranger, path) = (key(2), folder.join(format!("{}.request.tgd", id(&key(2)))));
    for site in ["quay", "pier", "pier"] {
        assert_eq!(status(&send(&request(&stranger, site).to_bytes()).await), "204");
    }
    assert_eq!(fs::read(&path).expect("kept"), request(&stranger, "pier").to_bytes());
    let kept = files(&folder);
    assert_eq!(kept.len(), 1, "{kept:?}");

    let good = request(&key(3), "quay");
    let text = String::from_utf8(good.to_bytes()).expect("text");
    let enrolment = Enrolment::new(&root(), &key(3).public(), Labels::new(), 1, 1).expect("sound");
    let enrolment = Document::sign(DocumentKind::Enrolment, &enrolment, &key(3)).expect("signed");
    let in_anothers_name = text.replacen(&id(&key(3)).to_string(), &id(&stranger).to_string(), 1);
    for (body, name) in [
        (b"garbage".to_vec(), "BadMagic"),
        (Vec::new(), "BadMagic"),
        (good.to_bytes()[..200].to_vec(), "Truncated"),
        (text.replace("quay", "Quay").into_bytes(), "SignatureInvalid"),
        (in_anothers_name.into_bytes(), "SignatureInvalid"),
        (enrolment.to_bytes(), "TypeMismatch"),
        (good.clone().signed_too(&stranger).expect("signed").to_bytes(), "SigSectionMalformed"),
    ] {
        assert_eq!(refusal(&send(&body).await), told("422", name));
    }
    assert_eq!(refusal(&send(&vec![b'{'; (32 << 10) + 1]).await), told("413", "RequestTooLarge"));
    let at = hub.address;
    let huge = b"PUT /v1/requests HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(refusal(&raw(at, huge).await), told("413", "RequestTooLarge"));
    let chunked =
        b"PUT /v1/requests HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(refusal(&raw(at, chunked).await), told("411", "LengthRequired"));
    let slow = b"PUT /v1/requests HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc";
    assert_eq!(refusal(&raw(at, slow).await), told("408", "BodyTimeout"));
    let get = b"GET /v1/requests HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(refusal(&raw(at, get).await), told("405", "MethodNotAllowed"));
    assert_eq!(files(&folder), kept, "nothing of that is kept");
    hub.stop().await;
}

#[tokio::test]
async fn a_flood_of_requests_fills_no_disk_and_leaves_those_that_wait() {
    let premises = Premises::new();
    let (config, folder) = keeps(&premises);
    let hub = Running::start(config).await;
    let send = async |key: &SigningKey, site: &str| {
        raw(hub.address, &put("/v1/requests", "", &request(key, site).to_bytes())).await
    };
    assert_eq!(status(&send(&device(), "quay").await), "204");
    for number in 1..256 {
        let other = SigningKey::from_seed(&random().expect("randomness")).expect("a key");
        assert_eq!(status(&send(&other, "flood").await), "204", "{number}");
    }
    for _ in 0..3 {
        let other = SigningKey::from_seed(&random().expect("randomness")).expect("a key");
        assert_eq!(refusal(&send(&other, "flood").await), told("503", "RequestsFull"));
    }
    assert_eq!(files(&folder).len(), 256);
    assert_eq!(status(&send(&device(), "pier").await), "204", "one that waits may be sent anew");
    // Room again once a person has dealt with one.
    fs::remove_file(folder.join(format!("{}.request.tgd", id(&device())))).expect("there");
    assert_eq!(status(&send(&key(7), "quay").await), "204");
    assert_eq!(files(&folder).len(), 256);
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_without_a_folder_of_requests_keeps_none_and_the_device_is_told() {
    let premises = Premises::new();
    let hub = Running::start(premises.config()).await;
    let address = hub.address;
    let bring = move |hub: String| {
        let config = upload::Config { hubs: vec![hub], ..upload::Config::default() };
        deliver(&config, &device().public(), request(&device(), "quay").to_bytes())
    };
    let told = tokio::task::spawn_blocking(move || bring(format!("http://{address}"))).await.expect("no panic");
    assert!(matches!(told, Err(Undelivered::Refused { name, .. }) if name == "NotFound"));
    hub.stop().await;
}

#[tokio::test]
async fn a_request_goes_to_the_pinned_hub_only() {
    let premises = Premises::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, tls_key) = (premises.path("hub.pem"), premises.path("hub.pk8"));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&tls_key, made.signing_key.serialize_pem()).expect("written");
    let pin = sha256(&rcgen::PublicKeyData::subject_public_key_info(&made.signing_key));
    let (config, folder) = keeps(&premises);
    let hub = Running::start(Config { tls: Some(tidegate::hub::Tls { certificate, key: tls_key }), ..config }).await;
    let address = hub.address;
    let bring = async |pins: Vec<Digest>| {
        let hubs = vec![format!("https://{address}")];
        let config = upload::Config { hubs, hub_pins: pins, ..upload::Config::default() };
        let deliver = move || deliver(&config, &device().public(), request(&device(), "quay").to_bytes());
        tokio::task::spawn_blocking(deliver).await.expect("no panic")
    };
    assert!(matches!(bring(vec![]).await, Err(Undelivered::Setting(upload::Error::NoPin))));
    let wrong = bring(vec![Digest([1; 32])]).await;
    assert!(matches!(wrong, Err(Undelivered::Failed(upload::Failure::Tls))), "{wrong:?}");
    assert!(files(&folder).is_empty());
    bring(vec![pin]).await.expect("it is the pinned one");
    assert_eq!(files(&folder).len(), 1);
    hub.stop().await;
}

/// Two keys of the role policy, of which one must sign, and the hub's.
pub(crate) fn root() -> RootDocument {
    let role = |keys: &[usize]| RoleKeys { keys: keys.to_vec(), threshold: 1 };
    RootDocument::build(RootDraft {
        deployment: "harbour".into(),
        epoch: 1,
        version: 1,
        issued_at: 1,
        keys: vec![("ada".into(), key(4).public()), ("hub".into(), hub_key().public())],
        roles: BTreeMap::from([(Role::Root, role(&[0])), (Role::Policy, role(&[0])), (Role::Hub, role(&[1]))]),
    })
    .expect("a sound root")
}

#[tokio::test]
async fn of_enrolments_the_one_of_the_policy_role_goes_first_as_the_device_has_it() {
    let premises = Premises::new();
    let bundles = premises.path("bundles");
    fs::create_dir(&bundles).expect("made");
    fs::write(premises.path("root.json"), root().bytes()).expect("written");
    let enrolment = |by: &SigningKey, of: &SigningKey, seq: u64| {
        let enrolment = Enrolment::new(&root(), &of.public(), Labels::new(), seq, 1).expect("sound");
        Document::sign(DocumentKind::Enrolment, &enrolment, by).expect("signed").to_bytes()
    };
    // The device is not listed: that it is enrolled here is enough to fetch.
    let new = key(2);
    let config = Config { bundles: Some(bundles.clone()), root: Some(premises.path("root.json")), ..premises.config() };
    let ask = async |hub: &Running, device: &SigningKey| {
        let path = format!("/v1/bundles/{}/enrolment", id(device));
        raw(hub.address, format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).await
    };
    let hub = Running::start(config.clone()).await;
    assert_eq!(refusal(&ask(&hub, &new).await), told("403", "UnknownDevice"));
    hub.stop().await;

    let stolen = enrolment(&hub_key(), &new, 1 << 50);
    fs::write(bundles.join("1.tgd"), &stolen).expect("written");
    let nobodys = enrolment(&key(8), &new, 1 << 51);
    fs::write(bundles.join("2.tgd"), &nobodys).expect("written");
    let hub = Running::start(config.clone()).await;
    assert!(ask(&hub, &new).await.ends_with(&stolen), "what nobody signed whom the root knows goes last");
    assert_eq!(refusal(&ask(&hub, &key(3)).await), told("403", "UnknownDevice"));
    hub.stop().await;

    for seq in [7, 8] {
        fs::write(bundles.join(format!("policy-{seq}.tgd")), enrolment(&key(4), &new, seq)).expect("written");
    }
    let hub = Running::start(config.clone()).await;
    assert!(ask(&hub, &new).await.ends_with(&enrolment(&key(4), &new, 8)));
    hub.stop().await;
    // The control: a hub that has no root cannot tell them apart.
    let hub = Running::start(Config { root: None, ..config }).await;
    assert!(ask(&hub, &new).await.ends_with(&nobodys));
    hub.stop().await;
}

#[tokio::test]
async fn a_root_or_a_folder_of_requests_that_is_not_there_is_told_at_the_start() {
    let premises = Premises::new();
    let absent = || Some(premises.path("absent"));
    let wrong = [
        Config { root: absent(), bundles: Some(premises.path("")), ..premises.config() },
        Config { requests: absent(), ..premises.config() },
    ];
    for config in wrong {
        let error = Hub::bind(config).await.expect_err("it does not start");
        assert!(error.is_configuration() && error.to_string().contains("absent"), "{error}");
    }
}
