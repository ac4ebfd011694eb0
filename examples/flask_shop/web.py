"""The web: takes orders and publishes them.

flask --app examples.flask_shop.web run
gunicorn --preload --workers 2 'examples.flask_shop.web:create_app()'
"""

from flask import Blueprint, Flask, current_app, request
from flask.typing import ResponseReturnValue

from examples.flask_shop.model import orders
from mqkit import App, BackendError, SchemaError

messages = App(service="web", publish_timeout=5)
shop = Blueprint("shop", __name__)


def create_app() -> Flask:
    web = Flask(__name__)
    web.register_blueprint(shop)
    # Fails here, and not at the first request, if the broker is away. It is closed when the process ends, and a worker
    # that gunicorn forks afterwards connects anew by itself.
    messages.open()
    return web


@shop.post("/orders")
def take() -> ResponseReturnValue:
    # publish checks what came against the topic's schema, so nothing has to be checked before
    return {"id": messages.publish(orders, request.get_json())}, 202


@shop.app_errorhandler(SchemaError)
def refuse(error: SchemaError) -> ResponseReturnValue:
    return {"errors": [{"field": field.path, "problem": field.problem} for field in error.fields]}, 422


@shop.app_errorhandler(BackendError)
def put_off(error: BackendError) -> ResponseReturnValue:
    current_app.logger.error("an order could not be published: %s", error)
    return {"error": "Orders cannot be taken at the moment: try again in a minute."}, 503
