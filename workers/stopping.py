"""Whether this process was asked to stop. A running unit looks at it and gives its claim back."""

import threading

STOPPING = threading.Event()
