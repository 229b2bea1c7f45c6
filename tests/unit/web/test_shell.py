"""The files of the page: which there are, and that nothing is in them that the page may not do."""

from __future__ import annotations

import posixpath
import re

from playerstate.web.shell import page_files
from tests.kit.web import WebTestCase

IMPORT = re.compile(r'\bfrom "(\.[^"]+)"')
LINK = re.compile(r'\b(?:href|src)="([^"#]+)"')
URL = re.compile(r"\b(?:https?:)?//[\w.-]+\.\w+")
API = {"metrics"}
"""What the page links to that is not one of its files."""


class ShellTests(WebTestCase):
    """The page as it is served."""

    def setUp(self) -> None:
        """Its files by their paths."""
        super().setUp()
        self.files = {"/".join(file.path): file for file in page_files()}

    def text(self, path: str) -> str:
        """The text of a file."""
        return self.files[path].body.decode()

    def ours(self, suffix: str) -> list[str]:
        """The paths of those of our own files that end so."""
        return [p for p in self.files if p.endswith(suffix) and not p.startswith("page/uplot/")]

    def test_served_without_a_token(self) -> None:
        """Each file is answered by its bytes and its type, under the policy, with no token."""
        self.serve()
        self.assertGreater(len(self.files), 15)
        for path, file in self.files.items():
            answer = self.ask("GET", f"/{path}")
            self.assertEqual((answer.status, answer.body), (200, file.body))
            self.assertEqual(answer.headers["content-type"], file.content_type)
            self.assertNotIn("unsafe", answer.headers["content-security-policy"])

    def test_types(self) -> None:
        """A browser takes each file for what it is."""
        types = {"": "text/html", "page/main.js": "text/javascript", "page/page.css": "text/css"}
        types |= {"page/icon.svg": "image/svg+xml", "page/uplot/LICENSE": "text/plain"}
        for path, wanted in types.items():
            self.assertEqual(self.files[path].content_type.split(";")[0], wanted)

    def test_linked_from_elsewhere(self) -> None:
        """A page of another site may link to this one, but not to what shows players."""
        self.serve()
        site = {"Sec_Fetch_Site": "cross-site"}
        self.assertEqual(self.ask("GET", "/", **site).status, 200)
        self.assertEqual(self.ask("GET", "/players?online=1", **site).status, 403)

    def test_read_only(self) -> None:
        """The files take no other method, and no query."""
        self.serve()
        self.assertEqual(self.ask("POST", "/").headers["allow"], "GET")
        self.assertEqual(self.ask("GET", "/?token=x").status, 400)

    def test_all_is_there(self) -> None:
        """What the page and its modules refer to is among the files, and each module is used."""
        linked = set(LINK.findall(self.text(""))) - API
        self.assertEqual(linked - set(self.files), set())
        used = set(linked)
        for path in self.ours(".js"):
            folder = posixpath.dirname(path)
            used |= {
                posixpath.normpath(posixpath.join(folder, name))
                for name in IMPORT.findall(self.text(path))
            }
        self.assertEqual(used - set(self.files), set())
        self.assertEqual(set(self.files) - used, {"", "page/uplot/LICENSE"})

    def test_nothing_inline(self) -> None:
        """No script and no style stands in the document, where the policy would forbid it."""
        document = self.text("")
        self.assertNotRegex(document, r"<style|\sstyle=|\son\w+=|javascript:")
        self.assertEqual(re.findall(r"<script[^>]*>(?!</script>)", document), [])
        for path in self.ours(".js"):
            self.assertNotRegex(self.text(path), r"\beval\(|new Function|innerHTML|\.cssText")

    def test_no_other_host(self) -> None:
        """No file of ours names another host, except an XML namespace."""
        for path in [*self.ours(".js"), *self.ours(".css"), *self.ours(".svg"), ""]:
            text = self.text(path).replace("http://www.w3.org/2000/svg", "")
            self.assertEqual(URL.findall(text), [], path)

    def test_licence(self) -> None:
        """uPlot comes with its licence."""
        self.assertIn("MIT", self.text("page/uplot/LICENSE"))
