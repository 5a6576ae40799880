//! The gateway port: open while something is routed through it, refused when not.

use tests::client::must_be_refused;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

/// Gateway, DestinationRule and VirtualService of the seed's TCP section, first step, letter for letter.
pub(crate) const SEED_V1: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: tcp-echo-gateway
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 31400
      name: tcp
      protocol: TCP
    hosts:
    - \"*\"
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: tcp-echo-destination
spec:
  host: tcp-echo
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: tcp-echo
spec:
  hosts:
  - \"*\"
  gateways:
  - tcp-echo-gateway
  tcp:
  - match:
    - port: 31400
    route:
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v1
";

/// The seed's second step, letter for letter.
pub(crate) const SEED_80_20: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: tcp-echo
spec:
  hosts:
  - \"*\"
  gateways:
  - tcp-echo-gateway
  tcp:
  - match:
    - port: 31400
    route:
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v1
      weight: 80
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v2
      weight: 20
";

#[test]
fn the_port_is_open_only_while_a_virtual_service_routes_it() {
    let scene = Scene::unrouted("gateway", Datapath::Steer);
    let gateway = scene.gateway();
    let (without, _) = SEED_V1.rsplit_once("---\n").unwrap();
    scene.daemon.apply("tcp-echo.yaml", without);
    must_be_refused(&scene.client, gateway);
    scene.daemon.apply("tcp-echo.yaml", SEED_V1);
    assert_eq!(answer(&scene.client, gateway), "one");
    let mut open = tests::client::connect(&scene.client, gateway);
    open.must_echo("before", "one before");
    scene.daemon.apply("tcp-echo.yaml", without);
    must_be_refused(&scene.client, gateway);
    open.must_echo("after", "one after");
}

#[test]
fn a_gateway_for_somebody_else_is_left_alone() {
    let scene = Scene::unrouted("foreign", Datapath::Steer);
    let gateway = scene.gateway();
    scene.daemon.apply("tcp-echo.yaml", &SEED_V1.replace("istio: ingressgateway", "istio: egressgateway"));
    must_be_refused(&scene.client, gateway);
}
