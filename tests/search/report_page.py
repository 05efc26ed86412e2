"""A report as a reader sees it."""

from html.parser import HTMLParser

from search.report import write_report


class Page(HTMLParser):
    """A report as a reader sees it: its text by section (`""` is the first screen), and the leaderboard's cells."""

    def __init__(self, study):
        super().__init__()
        self.sections, self.rows, self.tags = {"": ""}, [], []
        self._here, self._hidden = "", False
        self.source = write_report(study).read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")
        if tag == "section":
            self._here = dict(attrs)["id"]
            self.sections[self._here] = ""
        if tag == "tr" and self._here == "leaderboard":
            self.rows.append([])
        if tag in ("td", "th") and self._here == "leaderboard":
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        words = data.split()
        if self._hidden or not words:
            return
        self.sections[self._here] += " ".join(words) + " "
        if self._here == "leaderboard" and self.rows and self.rows[-1]:
            self.rows[-1][-1] += " ".join(words)

    @property
    def first_screen(self):
        return self.sections[""]

    def __getitem__(self, section):
        return self.sections[section]

    def column(self, name):
        header, *rows = self.rows
        return [row[header.index(name)] for row in rows]
