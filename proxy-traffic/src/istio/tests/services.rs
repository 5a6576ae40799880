//! Services, ServiceEntries and who serves them; addresses and names.

use super::*;

/// A ServiceEntry with that spec, next to what every row needs.
fn entry(spec: &str) -> String {
    resource("ServiceEntry", &format!("{{resolution: STATIC, {spec}}}"))
}

#[test]
fn endpoints_serve_on_their_own_port_the_target_port_or_the_same() {
    for (port, endpoint, want) in [
        ("", "", "10.1.0.9:5432"),
        (", targetPort: 15432", "", "10.1.0.9:15432"),
        (", targetPort: 15432", ", ports: {tcp: 25432}", "10.1.0.9:25432"),
        ("", ", weight: 3", "10.1.0.9:5432 weight 3"),
        ("", ", weight: 0", "10.1.0.9:5432"),
    ] {
        check(
            &[&entry(&format!(
                "hosts: [db.example.com], addresses: [10.0.0.5], location: MESH_EXTERNAL, \
                 ports: [{{number: 5432, name: tcp, protocol: TCP{port}}}], \
                 endpoints: [{{address: 10.1.0.9{endpoint}}}]"
            ))],
            &format!(
                "10.0.0.5:5432 db.example.com:5432, direct
                   -> 100% outbound|5432||db.example.com
                 cluster outbound|5432||db.example.com: {want}"
            ),
        );
    }
}

#[test]
fn a_workload_selector_finds_workload_entries_and_pods_of_its_namespace() {
    let workloads = "
      {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm}, spec: {address: 10.1.0.1, labels: {app: x}, ports: {tcp: 7}}}
      ---
      {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: meta, labels: {app: x}}, spec: {address: 10.1.0.2}}
      ---
      {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: far, namespace: other}, spec: {address: 10.1.0.3, labels: {app: x}}}
      ---
      {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: not}, spec: {address: 10.1.0.4, labels: {app: y}}}
      ---
      {apiVersion: v1, kind: Pod, metadata: {name: pod, labels: {app: x}}, status: {podIPs: [{ip: '2001:db8::1'}]}}"
        .replace("\n      ", "\n");
    let spec = "hosts: [x.example.com], addresses: ['2001:db8::5'], ports: [{number: 80, name: tcp, protocol: TCP}], \
                workloadSelector: {labels: {app: x}}";
    check(
        &[&entry(spec), &workloads],
        "[2001:db8::5]:80 x.example.com:80, steer: the endpoint 10.1.0.2:80 is of another address family
           -> 100% outbound|80||x.example.com
         cluster outbound|80||x.example.com: [2001:db8::1]:80, 10.1.0.2:80, 10.1.0.1:7",
    );
}

#[test]
fn a_service_selects_workload_entries_and_finds_ports_by_name() {
    let yaml = "
      {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIPs: [10.0.0.7, '2001:db8::7'], selector: {app: web}, ports: [{name: tcp, port: 80, targetPort: main}]}}
      ---
      {apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: web}}, spec: {containers: [{name: c}, {name: d, ports: [{name: main, containerPort: 8080}]}]}, status: {podIP: 10.1.0.1}}
      ---
      {apiVersion: networking.istio.io/v1beta1, kind: WorkloadEntry, metadata: {name: b}, spec: {address: 10.1.0.2, labels: {app: web}, ports: {main: 9090}}}
      ---
      {apiVersion: networking.istio.io/v1alpha3, kind: WorkloadEntry, metadata: {name: c}, spec: {address: 10.1.0.3, labels: {app: web}, ports: {tcp: 7070}}}"
        .replace("\n      ", "\n");
    check(
        &[&yaml],
        "10.0.0.7:80 web:80, direct
           -> 100% outbound|80||web
         [2001:db8::7]:80 web:80, steer: the endpoint 10.1.0.1:8080 is of another address family
           -> 100% outbound|80||web
         cluster outbound|80||web: 10.1.0.1:8080, 10.1.0.2:9090, 10.1.0.3:7070",
    );
}

#[test]
fn a_pod_that_is_not_ready_is_no_endpoint() {
    for (status, published, want) in [
        ("", false, "10.1.0.1:80"),
        (", phase: Running, conditions: [{type: Ready, status: 'True'}]", false, "10.1.0.1:80"),
        (", conditions: [{type: Ready, status: 'False'}]", false, "no endpoint"),
        (", conditions: [{type: Initialized, status: 'False'}]", false, "10.1.0.1:80"),
        (", phase: Succeeded", false, "no endpoint"),
        (", conditions: [{type: Ready, status: 'False'}]", true, "10.1.0.1:80"),
        (", phase: Failed", true, "no endpoint"),
    ] {
        let yaml = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{clusterIP: 10.0.0.7, selector: {{app: web}}, \
             publishNotReadyAddresses: {published}, ports: [{{port: 80}}]}}}}\n---\n\
             {{apiVersion: v1, kind: Pod, metadata: {{name: a, labels: {{app: web}}}}, status: {{podIP: 10.1.0.1{status}}}}}"
        );
        check(
            &[&yaml],
            &format!(
                "10.0.0.7:80 web:80, direct\n-> 100% outbound|80||web\ncluster outbound|80||web: {want}"
            ),
        );
    }
}

#[test]
fn udp_ports_are_not_captured() {
    let yaml = "{apiVersion: v1, kind: Service, metadata: {name: dns}, spec: {clusterIP: 10.0.0.7, selector: {app: dns}, \
                ports: [{name: a, port: 53, protocol: UDP}, {name: b, port: 53}]}}";
    check(
        &[yaml],
        "10.0.0.7:53 dns:53, direct\n-> 100% outbound|53||dns\ncluster outbound|53||dns: no endpoint",
    );
}

#[test]
fn ranges_are_captured_longest_prefix_first() {
    check(
        &[&entry(
            "hosts: [r.example.com], addresses: [10.0.0.0/8, 10.7.3.1/16, 10.9.9.9], \
             ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 10.1.0.9}]",
        )],
        "10.9.9.9:80 r.example.com:80, direct
           -> 100% outbound|80||r.example.com
         10.7.0.0/16:80 r.example.com:80, direct
           -> 100% outbound|80||r.example.com
         10.0.0.0/8:80 r.example.com:80, direct
           -> 100% outbound|80||r.example.com
         cluster outbound|80||r.example.com: 10.1.0.9:80",
    );
}

#[test]
fn a_service_entry_of_a_services_host_adds_endpoints() {
    check(
        &[
            DB,
            &entry(
                "hosts: [db.default.svc.cluster.local], ports: [{number: 5432, name: tcp, protocol: TCP}], \
                 endpoints: [{address: 10.9.0.1, labels: {version: v1}}]",
            ),
        ],
        "10.0.0.5:5432 db:5432, direct
           -> 100% outbound|5432||db
         cluster outbound|5432||db: 10.1.0.1:15432, 10.1.0.2:15432, 10.9.0.1:5432",
    );
}

#[test]
fn an_address_that_two_bring_serves_once() {
    let again = "ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: 15432}], endpoints: [{address: 10.1.0.2, weight: 5}]";
    check(
        &[DB, &entry(&format!("hosts: [db.default.svc.cluster.local], {again}"))],
        "10.0.0.5:5432 db:5432, direct
           -> 100% outbound|5432||db
         cluster outbound|5432||db: 10.1.0.1:15432, 10.1.0.2:15432",
    );
}

#[test]
fn a_service_without_selector_is_left_alone_until_somebody_serves_it() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {clusterIP: 10.0.0.1, ports: [{port: 443}]}}";
    let (snapshot, _) = load(&[service]);
    assert_eq!(snapshot.to_string(), "");
    assert_eq!(
        snapshot.hosts["api.default.svc.cluster.local"].addresses,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    let (snapshot, problems) = load(&[
        service,
        &entry(
            "hosts: [api.default.svc.cluster.local], ports: [{number: 443, name: tcp, protocol: TCP}], \
             endpoints: [{address: 10.9.0.1}]",
        ),
    ]);
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(problems, []);
}

#[test]
fn a_headless_service_stands_for_its_pods() {
    let (snapshot, _) = load(&[&DB.replace("10.0.0.5", "None")]);
    assert!(snapshot.listeners.is_empty());
    let addresses = &snapshot.hosts["db.default.svc.cluster.local"].addresses;
    assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.1", "10.1.0.2"]);
}

#[test]
fn the_oldest_service_has_an_address_that_two_claim() {
    let named = |name: &str, created: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, creationTimestamp: '{created}'}}, \
             spec: {{resolution: STATIC, hosts: [{name}.example.com], addresses: [10.0.0.5, 10.4.0.0/16], \
             ports: [{{number: 80, name: tcp, protocol: TCP}}], endpoints: [{{address: 10.1.0.9}}]}}}}"
        )
    };
    let (snapshot, _) = load(&[&named("a", "2026-01-02T00:00:00Z"), &named("b", "2026-01-01T00:00:00Z")]);
    assert_eq!(snapshot.listeners[&"10.0.0.5:80".parse().unwrap()].name, "b.example.com:80");
    assert_eq!(snapshot.subnets.len(), 1);
    assert_eq!(snapshot.subnets[0].listener.name, "b.example.com:80");
}

#[test]
fn wildcard_hosts_have_listeners_and_no_name() {
    let spec = "hosts: ['*.example.com'], addresses: [10.0.0.5], ports: [{number: 80, name: tcp, protocol: TCP}], \
                endpoints: [{address: 10.1.0.9}]";
    let (snapshot, problems) = load(&[&entry(spec)]);
    assert!(snapshot.hosts.is_empty());
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(problems, []);
}

#[test]
fn a_loopback_address_is_not_captured_and_said_so() {
    let spec = "hosts: [db.example.com], addresses: [127.0.0.50, 10.0.0.5], \
                ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 127.0.0.50}]";
    let (snapshot, problems) = load(&[&entry(spec)]);
    assert_eq!(snapshot.listeners.keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.5:80"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].what.contains("127.0.0.50 never leaves its host"), "{}", problems[0]);
}
