//! The route table: what the API has, from which version on, who serves it, and what is known but not
//! served yet. Plain paths stand before the patterns that would swallow them.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Method;

use berth_api::error::Operation;
use berth_api::version::ApiVersion;

use crate::call::{Call, Outcome};
use crate::handlers::{archives, attach, containers, images, logs, system};
use crate::router::{Lifetime, Router};

/// A boxed handler.
pub(crate) type Handler = fn(Call) -> BoxFuture<'static, Outcome>;

/// What stands behind a path.
pub(crate) struct Route {
    pub(crate) since: ApiVersion,
    pub(crate) serve: Serve,
}

#[derive(Clone, Copy)]
pub(crate) enum Serve {
    Handler {
        handler: Handler,
        lifetime: Lifetime,
        /// Which of the versions' status quirks apply.
        operation: Operation,
    },
    /// Docker has it; the text is the first half of a sentence (`building images is`).
    NotYet(&'static str),
    /// Docker had it; the text is the whole answer.
    Gone(&'static str),
}

struct Table(Router<Route>);

impl Table {
    fn add(&mut self, method: Method, pattern: &'static str, since: u32, serve: Serve) {
        self.0.add(
            method,
            pattern,
            Route {
                since: ApiVersion::new(1, since),
                serve,
            },
        );
    }

    /// Serves the client alone.
    fn follow(&mut self, method: Method, pattern: &'static str, since: u32, handler: Handler) {
        let serve = Serve::Handler {
            handler,
            lifetime: Lifetime::Client,
            operation: Operation::Other,
        };
        self.add(method, pattern, since, serve);
    }

    /// Has an effect.
    fn act(
        &mut self,
        method: Method,
        pattern: &'static str,
        since: u32,
        operation: Operation,
        handler: Handler,
    ) {
        self.add(
            method,
            pattern,
            since,
            Serve::Handler {
                handler,
                lifetime: Lifetime::Finish,
                operation,
            },
        );
    }

    fn not_yet(&mut self, what: &'static str, paths: &[(Method, &'static str)]) {
        for (method, pattern) in paths {
            self.add(method.clone(), pattern, 0, Serve::NotYet(what));
        }
    }
}

/// Boxes an async function as a [`Handler`].
macro_rules! boxed {
    ($handler:path) => {
        |call: Call| $handler(call).boxed()
    };
}

/// The whole API. The versions are those in which Docker introduced a path.
pub(crate) fn table() -> Router<Route> {
    use Operation::{Kill, Other, Remove, Restart, Start, Stop};

    let mut t = Table(Router::new());

    t.follow(Method::GET, "/_ping", 0, boxed!(system::ping));
    t.follow(Method::HEAD, "/_ping", 0, boxed!(system::ping));
    t.follow(Method::GET, "/version", 0, boxed!(system::version));
    t.follow(Method::GET, "/info", 0, boxed!(system::info));
    t.follow(Method::GET, "/events", 0, boxed!(system::events));

    t.follow(Method::GET, "/containers/json", 0, boxed!(containers::list));
    t.follow(Method::GET, "/containers/ps", 0, boxed!(containers::list));
    t.act(
        Method::POST,
        "/containers/create",
        0,
        Other,
        boxed!(containers::create),
    );
    t.act(
        Method::POST,
        "/containers/prune",
        25,
        Other,
        boxed!(containers::prune),
    );
    t.follow(
        Method::GET,
        "/containers/{name}/json",
        0,
        boxed!(containers::inspect),
    );
    t.follow(
        Method::GET,
        "/containers/{name}/top",
        3,
        boxed!(containers::top),
    );
    t.follow(
        Method::GET,
        "/containers/{name}/logs",
        11,
        boxed!(logs::logs),
    );
    t.act(
        Method::POST,
        "/containers/{name}/start",
        0,
        Start,
        boxed!(containers::start),
    );
    t.act(
        Method::POST,
        "/containers/{name}/stop",
        0,
        Stop,
        boxed!(containers::stop),
    );
    t.act(
        Method::POST,
        "/containers/{name}/restart",
        0,
        Restart,
        boxed!(containers::restart),
    );
    t.act(
        Method::POST,
        "/containers/{name}/kill",
        0,
        Kill,
        boxed!(containers::kill),
    );
    t.act(
        Method::POST,
        "/containers/{name}/pause",
        12,
        Other,
        boxed!(containers::pause),
    );
    t.act(
        Method::POST,
        "/containers/{name}/unpause",
        12,
        Other,
        boxed!(containers::unpause),
    );
    t.act(
        Method::POST,
        "/containers/{name}/rename",
        17,
        Other,
        boxed!(containers::rename),
    );
    t.act(
        Method::POST,
        "/containers/{name}/resize",
        0,
        Other,
        boxed!(containers::resize),
    );
    t.follow(
        Method::POST,
        "/containers/{name}/attach",
        0,
        boxed!(attach::attach),
    );
    t.follow(
        Method::POST,
        "/containers/{name}/wait",
        0,
        boxed!(containers::wait),
    );
    t.act(
        Method::DELETE,
        "/containers/{name}",
        0,
        Remove,
        boxed!(containers::remove),
    );

    t.follow(Method::GET, "/images/json", 0, boxed!(images::list));
    t.follow(Method::GET, "/images/get", 14, boxed!(archives::save_many));
    t.act(
        Method::POST,
        "/images/load",
        7,
        Other,
        boxed!(archives::load),
    );
    t.act(
        Method::POST,
        "/images/create",
        0,
        Other,
        boxed!(archives::create),
    );
    t.act(
        Method::POST,
        "/images/prune",
        25,
        Other,
        boxed!(images::prune),
    );
    t.follow(
        Method::GET,
        "/images/{name}/json",
        0,
        boxed!(images::inspect),
    );
    t.follow(
        Method::GET,
        "/images/{name}/history",
        0,
        boxed!(images::history),
    );
    t.follow(Method::GET, "/images/{name}/get", 7, boxed!(archives::save));
    t.act(
        Method::POST,
        "/images/{name}/tag",
        0,
        Other,
        boxed!(images::tag),
    );
    t.act(
        Method::DELETE,
        "/images/{name}",
        0,
        Other,
        boxed!(images::remove),
    );
    t.add(
        Method::GET,
        "/images/viz",
        7,
        Serve::Gone("This is now implemented in the client."),
    );

    not_yet(&mut t);
    t.0
}

/// What Docker's API has and this version of berth answers with 501.
fn not_yet(t: &mut Table) {
    t.not_yet(
        "attaching over a websocket is",
        &[(Method::GET, "/containers/{name}/attach/ws")],
    );
    t.not_yet(
        "exporting a container is",
        &[(Method::GET, "/containers/{name}/export")],
    );
    t.not_yet(
        "listing a container's changes is",
        &[(Method::GET, "/containers/{name}/changes")],
    );
    t.not_yet(
        "showing resource use is",
        &[(Method::GET, "/containers/{name}/stats")],
    );
    t.not_yet(
        "updating a container's limits is",
        &[(Method::POST, "/containers/{name}/update")],
    );
    t.not_yet(
        "copying to and from containers is",
        &[
            (Method::POST, "/containers/{name}/copy"),
            (Method::HEAD, "/containers/{name}/archive"),
            (Method::GET, "/containers/{name}/archive"),
            (Method::PUT, "/containers/{name}/archive"),
        ],
    );
    t.not_yet(
        "running commands in containers (exec) is",
        &[
            (Method::POST, "/containers/{name}/exec"),
            (Method::POST, "/exec/{id}/start"),
            (Method::POST, "/exec/{id}/resize"),
            (Method::GET, "/exec/{id}/json"),
        ],
    );
    t.not_yet(
        "checkpointing is",
        &[
            (Method::GET, "/containers/{name}/checkpoints"),
            (Method::POST, "/containers/{name}/checkpoints"),
        ],
    );
    t.not_yet(
        "making an image of a container (commit) is",
        &[(Method::POST, "/commit")],
    );
    t.not_yet(
        "building images is",
        &[
            (Method::POST, "/build"),
            (Method::POST, "/build/prune"),
            (Method::POST, "/build/cancel"),
            (Method::POST, "/session"),
            (Method::POST, "/grpc"),
        ],
    );
    t.not_yet(
        "talking to registries (search, push, login) is",
        &[
            (Method::GET, "/images/search"),
            (Method::POST, "/images/{name}/push"),
            (Method::POST, "/auth"),
            (Method::GET, "/distribution/{name}/json"),
        ],
    );
    t.not_yet("summing up disk use is", &[(Method::GET, "/system/df")]);
    t.not_yet(
        "managing networks is",
        &[
            (Method::GET, "/networks"),
            (Method::GET, "/networks/"),
            (Method::POST, "/networks/create"),
            (Method::POST, "/networks/prune"),
            (Method::POST, "/networks/{id}/connect"),
            (Method::POST, "/networks/{id}/disconnect"),
            (Method::GET, "/networks/{id}"),
            (Method::DELETE, "/networks/{id}"),
        ],
    );
    t.not_yet(
        "managing volumes is",
        &[
            (Method::GET, "/volumes"),
            (Method::POST, "/volumes/create"),
            (Method::POST, "/volumes/prune"),
            (Method::GET, "/volumes/{name}"),
            (Method::PUT, "/volumes/{name}"),
            (Method::DELETE, "/volumes/{name}"),
        ],
    );
    t.not_yet(
        "managing plugins is",
        &[
            (Method::GET, "/plugins"),
            (Method::GET, "/plugins/{name}"),
            (Method::POST, "/plugins/{name}"),
            (Method::DELETE, "/plugins/{name}"),
        ],
    );
    t.not_yet(
        "swarm mode is",
        &[
            (Method::GET, "/swarm"),
            (Method::GET, "/swarm/{what}"),
            (Method::POST, "/swarm/{what}"),
            (Method::GET, "/nodes"),
            (Method::GET, "/nodes/{id}"),
            (Method::POST, "/nodes/{id}"),
            (Method::DELETE, "/nodes/{id}"),
            (Method::GET, "/services"),
            (Method::GET, "/services/{id}"),
            (Method::POST, "/services/{id}"),
            (Method::DELETE, "/services/{id}"),
            (Method::GET, "/tasks"),
            (Method::GET, "/tasks/{id}"),
            (Method::GET, "/secrets"),
            (Method::GET, "/secrets/{id}"),
            (Method::POST, "/secrets/{id}"),
            (Method::DELETE, "/secrets/{id}"),
            (Method::GET, "/configs"),
            (Method::GET, "/configs/{id}"),
            (Method::POST, "/configs/{id}"),
            (Method::DELETE, "/configs/{id}"),
        ],
    );
}
