"""Progress."""

shown = []  # (value, of, node) of all that was shown


class ProgressBar:
    def __init__(self, total, node_id=None):
        self.total, self.node_id = total, node_id

    def update_absolute(self, value, total=None, preview=None):
        shown.append((value, total or self.total, self.node_id))
