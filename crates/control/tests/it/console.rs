//! The console's files, as a browser gets them: built or not, the page comes, and nothing else than what it names.

use crate::world::{Got, World};
use reqwest::Method;

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_the_one_page_and_runs_only_what_came_from_here() {
    let world = World::new().await;
    for path in ["/", "/console/fleet", "/console/devices/pump-1?series=a", "/console/a/b/c"] {
        let got = Got::of(world.call(None, Method::GET, path)).await;
        assert_eq!((got.status.as_u16(), got.header("cache-control")), (200, "no-cache"), "{path}");
        assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
        let policy = got.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        assert!(String::from_utf8(got.body).unwrap().contains("<title>Plimsoll</title>"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_names_is_there_for_ever_and_what_it_does_not_name_is_not() {
    let world = World::new().await;
    let page = Got::of(world.call(None, Method::GET, "/")).await;
    let text = String::from_utf8(page.body).unwrap();
    let named = text.split('"').filter(|word| word.starts_with("/assets/"));
    for path in named {
        let got = Got::of(world.call(None, Method::GET, path)).await;
        assert_eq!(got.status, 200, "{path}");
        assert!(got.header("cache-control").ends_with("immutable"), "{path}");
        let small = world.call(None, Method::GET, path).header("accept-encoding", "br");
        let small = Got::of(small).await;
        assert_eq!(small.header("content-encoding"), "br", "{path}");
        assert!(small.body.len() < got.body.len(), "{path}");
    }
    for path in
        ["/assets/index.html", "/assets/nothing.js", "/assets/..%2fCargo.toml", "/index.html"]
    {
        assert_eq!(Got::of(world.call(None, Method::GET, path)).await.status, 404, "{path}");
    }
}
