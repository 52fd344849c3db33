//! The calls that have arrived and are not answered yet. Each keeps the agent from leaving, from the
//! moment it is read off the socket until its answer is written: leaving in between would lose it.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use zbus::message::{Flags, Header, Message, Type};

use crate::BUS_NAME;

/// What keeps the agent busy (the engine's guard).
type Hold = Box<dyn Any + Send>;

/// Who called, and the serial of the call: unique as long as the connection lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    sender: String,
    serial: u32,
}

/// The open calls; cheap to clone.
#[derive(Clone)]
pub(crate) struct Calls {
    inner: Arc<Inner>,
}

struct Inner {
    open: Mutex<HashMap<Key, Hold>>,
    count: watch::Sender<usize>,
    hold: Box<dyn Fn() -> Hold + Send + Sync>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.inner.count.borrow();
        f.debug_struct("Calls").field("open", &*open).finish()
    }
}

impl Calls {
    /// `hold` makes a guard per call.
    pub(crate) fn new(hold: impl Fn() -> Hold + Send + Sync + 'static) -> Calls {
        Calls {
            inner: Arc::new(Inner {
                open: Mutex::new(HashMap::new()),
                count: watch::Sender::new(0),
                hold: Box::new(hold),
            }),
        }
    }

    /// A message was read off the socket.
    pub(crate) fn arrived(&self, message: &Message) {
        if message.message_type() != Type::MethodCall {
            return;
        }
        let header = message.header();
        // A call to which no answer is due ends when its method does, which only our own methods
        // report.
        let silent = header.primary().flags().contains(Flags::NO_REPLY_EXPECTED);
        let is_ours = header
            .interface()
            .is_some_and(|interface| interface.as_str().starts_with(BUS_NAME));
        if silent && !is_ours {
            return;
        }
        if let Some(key) = Key::of_call(&header) {
            let hold = (self.inner.hold)();
            self.change(|open| {
                open.insert(key, hold);
            });
        }
    }

    /// A message was written to the socket.
    pub(crate) fn written(&self, message: &Message) {
        if !matches!(message.message_type(), Type::MethodReturn | Type::Error) {
            return;
        }
        let header = message.header();
        if let (Some(destination), Some(serial)) = (header.destination(), header.reply_serial()) {
            self.end(&Key {
                sender: destination.to_string(),
                serial: serial.get(),
            });
        }
    }

    /// The call is over.
    pub(crate) fn end(&self, key: &Key) {
        self.change(|open| {
            open.remove(key);
        });
    }

    /// The connection ended: nothing can be answered any more.
    pub(crate) fn forget_all(&self) {
        self.change(HashMap::clear);
    }

    /// Resolves when no call is open.
    pub(crate) async fn all_answered(&self) {
        let mut count = self.inner.count.subscribe();
        // The sender lives in self, so the channel stays open.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Resolves when this call is answered.
    pub(crate) async fn answered(&self, key: &Key) {
        let mut count = self.inner.count.subscribe();
        while self.open().contains_key(key) {
            if count.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Key, Hold>)) {
        let mut open = self.open();
        change(&mut open);
        self.inner.count.send_replace(open.len());
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Hold>> {
        self.inner
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    pub(crate) fn of_call(header: &Header<'_>) -> Option<Key> {
        Some(Key {
            sender: header.sender()?.to_string(),
            serial: header.primary().serial_num().get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts the guards that live.
    struct Guard(Arc<AtomicUsize>);

    impl Guard {
        fn new(count: &Arc<AtomicUsize>) -> Guard {
            count.fetch_add(1, Ordering::SeqCst);
            Guard(Arc::clone(count))
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn calls() -> (Calls, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let made = Arc::clone(&count);
        (Calls::new(move || Box::new(Guard::new(&made))), count)
    }

    fn call(interface: &'static str, flags: Flags) -> Message {
        Message::method_call("/org/berth/Agent1", "Do")
            .sender(":1.7")
            .interface(interface)
            .with_flags(flags)
            .build(&())
            .unwrap()
    }

    #[tokio::test]
    async fn a_call_holds_the_agent_until_its_answer_is_written() {
        let (calls, held) = calls();
        let first = call("org.berth.Agent1.Manager", Flags::empty());
        let second = call("org.freedesktop.DBus.Properties", Flags::empty());
        calls.arrived(&first);
        calls.arrived(&second);
        assert_eq!(held.load(Ordering::SeqCst), 2);

        let waiting = calls.clone();
        let key = Key::of_call(&first.header()).unwrap();
        let answered = tokio::spawn(async move { waiting.answered(&key).await });
        let reply = Message::method_return(&first.header()).build(&()).unwrap();
        calls.written(&reply);
        answered.await.unwrap();
        assert_eq!(held.load(Ordering::SeqCst), 1);

        let error = Message::error(&second.header(), "org.x.Error.No")
            .build(&"no")
            .unwrap();
        calls.written(&error);
        calls.all_answered().await;
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn calls_without_an_answer_end_with_their_method() {
        let (calls, held) = calls();
        let silent = Flags::NO_REPLY_EXPECTED;
        // Nobody would report its end.
        calls.arrived(&call("org.freedesktop.DBus.Properties", silent));
        assert_eq!(held.load(Ordering::SeqCst), 0);
        let ours = call("org.berth.Agent1.Container", silent);
        calls.arrived(&ours);
        assert_eq!(held.load(Ordering::SeqCst), 1);
        calls.end(&Key::of_call(&ours.header()).unwrap());
        calls.all_answered().await;
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn nothing_is_held_for_a_connection_that_ended() {
        let (calls, held) = calls();
        calls.arrived(&call("org.berth.Agent1.Manager", Flags::empty()));
        calls.forget_all();
        calls.all_answered().await;
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }
}
