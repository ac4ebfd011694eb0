"""The worker: bills every order. Run it with `mqkit run examples.flask_shop.worker:app`, or as this module."""

from examples.flask_shop.model import Order, orders
from mqkit import App, Message, Retry

app = App(service="billing")


@app.subscribe(orders, group="billing", retry=Retry(attempts=3, wait_initial=0.5))
def bill(order: Order, message: Message[Order]) -> None:
    print(f"{message.id}: {order.customer} pays ${order.dollars}", flush=True)


if __name__ == "__main__":
    app.run()
