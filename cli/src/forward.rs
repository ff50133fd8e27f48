//! Services of the cluster from outside: a port of this machine that leads to one of their pods, through the API server.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Client;
use kube::api::{Api, ListParams};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// A port of this machine; closed when it is dropped.
pub struct Forward {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Opens a way to a service's port, through the first of its pods that is ready.
pub async fn open(client: &Client, namespace: &str, name: &str, port: u16) -> Result<Forward> {
    let what = || format!("no way to Service {namespace}/{name}");
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(name).await;
    let service = service.map_err(|error| Error::of_server(what(), error))?;
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = pods.list(&ListParams::default().labels(&labels.join(","))).await;
    let found = found.map_err(|error| Error::of_server(what(), error))?.items;
    let pod = found.iter().find(|pod| is_ready(pod)).ok_or_else(|| {
        Error::new(what()).why("none of its pods is ready").hint(format!("kubectl -n {namespace} get pods says why"))
    })?;
    let port = target(&service, pod, port).ok_or_else(|| Error::new(what()).why(format!("it has no port {port}")))?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| Error::new(what()).why(error))?;
    let address = listener.local_addr().map_err(|error| Error::new(what()).why(error))?;
    let pod = pod.metadata.name.clone().unwrap_or_default();
    Ok(Forward { address, serving: tokio::spawn(serve(listener, pods, pod, port)) })
}

// Every connection is one of its own to the API server. What goes wrong with it ends it, which whoever made it sees.
async fn serve(listener: TcpListener, pods: Api<Pod>, pod: String, port: u16) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((mut here, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        let (pods, pod) = (pods.clone(), pod.clone());
        open.spawn(async move {
            let Ok(mut forwarder) = pods.portforward(&pod, &[port]).await else { return };
            if let Some(mut there) = forwarder.take_stream(port) {
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            }
        });
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

// The pod's port behind a port of the service.
fn target(service: &Service, pod: &Pod, port: u16) -> Option<u16> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let found = ports.iter().find(|found| found.port == i32::from(port))?;
    let number = match &found.target_port {
        None => found.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let mut named =
                pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|one| one.ports.iter().flatten());
            named.find(|named| named.name.as_ref() == Some(name))?.container_port
        }
    };
    number.try_into().ok()
}

/// Namespace, name and port of the service that an address within the cluster means: `http://store.tools.svc:9000`.
pub fn service(endpoint: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.split('/').next()?;
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (host, if scheme == "https" { 443 } else { 80 }),
    };
    let mut parts = host.split('.');
    let (name, namespace) = (parts.next()?, parts.next()?);
    (parts.next() == Some("svc")).then(|| (namespace.to_owned(), name.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_within_the_cluster_are_known() {
        let found =
            |endpoint: &str| service(endpoint).map(|(namespace, name, port)| format!("{namespace}/{name}:{port}"));
        assert_eq!(found("http://store.tools.svc:9000").as_deref(), Some("tools/store:9000"));
        assert_eq!(found("https://s3.data.svc.cluster.local/x").as_deref(), Some("data/s3:443"));
        assert_eq!(found("https://s3.eu-west-1.amazonaws.com"), None);
        assert_eq!(found("http://localhost:9000"), None);
    }

    #[test]
    fn a_services_port_is_found_in_the_pod_by_number_and_by_name() {
        let ports = json!([{"port": 9000, "targetPort": "s3"}, {"port": 80, "targetPort": 8080}, {"port": 5}]);
        let service: Service = serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap();
        let container = json!({"name": "store", "ports": [{"name": "s3", "containerPort": 9900}]});
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap();
        let found = [9000, 80, 5, 7].map(|port| target(&service, &pod, port));
        assert_eq!(found, [Some(9900), Some(8080), Some(5), None]);
    }
}
